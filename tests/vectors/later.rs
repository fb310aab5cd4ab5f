//! Files that belong to a later step: named, so that nobody takes them for checked.

use std::io::Write;

use crate::framework::read;

#[test]
fn files_that_are_open() {
    for file in [
        "model-variants.json",
        "model-catalogs.json",
        "model-resolve.json",
        "estimated-catalog.json",
    ] {
        // They must at least be there and be JSON.
        read(file);
        // Past the capturing of the test harness: it is to be seen in every run.
        let line = format!("open: {file} (comes with the model mapper)\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
}
