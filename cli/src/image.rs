//! `--image FILE`: a picture as the base64 part of a user message.

use std::path::Path;

use agentwire::context::{Image, Part};

use crate::failure::Failure;
use crate::input;

/// The largest picture that is read. 20 MiB: base64 of it is above what one envelope may hold by
/// default, so the request codec has the last word.
const LIMIT: u64 = 20 << 20;

/// Reads a picture; the MIME type comes from its first bytes, and from the extension where those
/// say nothing.
pub(crate) fn read(path: &Path) -> Result<Part, Failure> {
    let bytes = input::file(path, LIMIT)?;
    if bytes.is_empty() {
        return Err(Failure::usage(format!("{} is empty, not an image", path.display())));
    }
    let mime = by_magic(&bytes).or_else(|| by_extension(path)).ok_or_else(|| {
        Failure::usage(format!(
            "{} is not an image that is known here: give PNG, JPEG, GIF, WebP, BMP, TIFF, HEIC, \
             AVIF or SVG",
            path.display()
        ))
    })?;
    Ok(Part::Image(Image { data: agentwire_base64(&bytes), mime_type: mime.to_owned() }))
}

fn agentwire_base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The formats that say what they are.
fn by_magic(bytes: &[u8]) -> Option<&'static str> {
    let brand = bytes.get(8..12);
    Some(match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => "image/png",
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => "image/gif",
        [b'R', b'I', b'F', b'F', ..] if brand == Some(b"WEBP") => "image/webp",
        [b'I', b'I', 0x2a, 0, ..] | [b'M', b'M', 0, 0x2a, ..] => "image/tiff",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => match brand? {
            b"avif" | b"avis" => "image/avif",
            b"heic" | b"heix" | b"hevc" | b"mif1" => "image/heic",
            _ => return None,
        },
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => "image/bmp",
        _ => return None,
    })
}

/// The text format, which has no mark of its own. Formats that [`by_magic`] knows are not believed
/// by name: a file called `.png` that is none would fail at the service, and later.
fn by_extension(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?;
    extension.eq_ignore_ascii_case("svg").then_some("image/svg+xml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        let table: &[(&[u8], Option<&str>)] = &[
            (b"\x89PNG\r\n\x1a\n....", Some("image/png")),
            (b"\xff\xd8\xff\xe0", Some("image/jpeg")),
            (b"GIF89a..", Some("image/gif")),
            (b"RIFF....WEBPVP8 ", Some("image/webp")),
            (b"RIFF....WAVEfmt ", None),
            (b"MM\0\x2a", Some("image/tiff")),
            (b"\0\0\0\x20ftypavif", Some("image/avif")),
            (b"\0\0\0\x20ftypheic", Some("image/heic")),
            (b"\0\0\0\x20ftypisom", None),
            (b"BM\x10\0\0\0\0\0\0\0\x36", Some("image/bmp")),
            (b"BM is a word", None),
            (b"", None),
        ];
        for (bytes, mime) in table {
            assert_eq!(by_magic(bytes), *mime, "{bytes:?}");
        }
    }

    #[test]
    fn an_extension_counts_for_svg_only() {
        assert_eq!(by_extension(Path::new("a/b.SVG")), Some("image/svg+xml"));
        assert_eq!(by_extension(Path::new("b.png")), None);
        assert_eq!(by_extension(Path::new("svg")), None);
    }
}
