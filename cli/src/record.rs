//! `--record`: what goes over the wire, in a file that `decode` and `replay` read.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::sync::Arc;

use agentwire::recording::Writer;
use agentwire::transport::Client;

use crate::failure::Failure;
use crate::output::Look;

/// The default of `--record-limit`: a day of lively chat, and no full disk.
const LIMIT: &str = "256M";

/// The arguments of what can be recorded.
#[derive(Debug, clap::Args)]
pub(crate) struct RecordArgs {
    /// Write what goes over the wire to this file, for `decode` and `replay`: all content, no token
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// Stop recording at this many bytes (K, M, G: times 1024)
    #[arg(long, value_name = "SIZE", default_value = LIMIT, value_parser = size, requires = "record")]
    record_limit: u64,
}

/// A recording that is being made.
pub(crate) struct Recording(Arc<Writer<File>>);

impl RecordArgs {
    /// Begins the recording if one is wanted; what was in the file is gone.
    pub(crate) fn begin(&self) -> Result<Option<Recording>, Failure> {
        let Some(path) = &self.record else { return Ok(None) };
        let refused = |error: std::io::Error| {
            let shown = path.display().to_string().escape_debug().to_string();
            Failure::usage(format!("--record {shown} cannot be written: {error}"))
        };
        let file = create(path).map_err(refused)?;
        let writer = Writer::new(file, self.record_limit).map_err(refused)?;
        Ok(Some(Recording(Arc::new(writer))))
    }
}

impl Recording {
    /// A client whose runs are written down.
    pub(crate) fn of(&self, client: &Client) -> Client {
        client.recorded(Arc::<Writer<File>>::clone(&self.0))
    }

    /// Says, once, why it is not complete.
    pub(crate) fn end(&self, look: Look) {
        if let Some(trouble) = self.0.trouble() {
            look.remark(&format!("note: {trouble}"));
        }
    }
}

/// The file for its owner alone, also where it was there before and others could read it.
fn create(path: &std::path::Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    if file.metadata()?.is_file() {
        use std::os::unix::fs::PermissionsExt as _;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// A number of bytes, with a letter for how many at a time.
fn size(text: &str) -> Result<u64, String> {
    let letter = text.chars().last().map(|last| last.to_ascii_uppercase());
    let unit: u64 = match letter {
        Some('K') => 1 << 10,
        Some('M') => 1 << 20,
        Some('G') => 1 << 30,
        _ => 1,
    };
    let digits = if unit == 1 { text } else { text.get(..text.len() - 1).unwrap_or_default() };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| "give a number of bytes, such as 500000, 64K or 1G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_letter_or_none() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("500"), Ok(500));
        assert_eq!(size("64k"), Ok(64 << 10));
        assert_eq!(size(LIMIT), Ok(256 << 20));
        assert_eq!(size("1G"), Ok(1 << 30));
        for bad in ["", "K", "-1", "1.5M", "1T", "99999999999G", "é"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
