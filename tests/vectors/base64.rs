//! `base64.json`: which text is an image and which is not.

use agentwire::codec::image::{Place, decode};
use serde_json::Value;

use crate::framework::{Suite, hex, same, text};

/// The reference's words for an image that is not base64, with our place in them.
pub fn reference_error(place: Place<'_>) -> String {
    let (kind, index, mime) = (place.kind(), place.index(), place.mime_type());
    format!("Invalid {kind} base64 image data at index {index} for MIME type {mime}")
}

fn check(case: &Value) -> Result<(), String> {
    let place = Place::Selected { index: 3, mime_type: "image/png" };
    match decode(text(case, "input")?, place) {
        Ok(bytes) => same("bytes", &hex(&bytes), &text(case, "output")?.to_owned()),
        Err(error) => {
            let named = error.message().contains(&place.to_string());
            same("the error names the place", &named, &true)?;
            same("error", &reference_error(place), &text(case, "error")?.to_owned())
        }
    }
}

#[test]
fn base64() {
    Suite { file: "base64.json", cases: "", expected: &["output", "error"], check }.run();
}
