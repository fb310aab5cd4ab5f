//! The file, its limit, and what is said of one that is damaged.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::*;

#[derive(Clone, Default)]
struct Sink {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Writes that work before the disk is full.
    works: Option<usize>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(works) = &mut self.works {
            *works = works.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        }
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn begin() -> Record {
    let (request_id, read_only_tools) = ("r".to_owned(), Vec::new());
    Record {
        at_us: 0,
        run: 1,
        stream: 0,
        what: What::Run {
            request_id,
            retries: 0,
            read_only_tools,
            renewable: false,
            deadline_us: None,
        },
    }
}

fn server(bytes: &'static [u8]) -> Record {
    let what = What::Server { bytes: Bytes::from_static(bytes) };
    Record { at_us: 5, run: 1, stream: 1, what }
}

fn written(limit: u64, records: impl IntoIterator<Item = Record>) -> (Vec<u8>, Option<Trouble>) {
    let sink = Sink::default();
    let writer = Writer::new(sink.clone(), limit).unwrap();
    records.into_iter().for_each(|record| writer.record(record));
    let bytes = sink.bytes.lock().unwrap().clone();
    (bytes, writer.trouble())
}

#[test]
fn what_is_written_is_read() {
    let records = [begin(), server(b"\0\0\0\0\x02\x0a\0")];
    let (bytes, trouble) = written(u64::MAX, records.clone());
    assert_eq!(trouble, None);
    let recording = Recording::read(&*bytes).unwrap();
    assert_eq!(recording, Recording { records: records.to_vec(), torn: false });
    assert_eq!(recording.runs(), [1]);
}

#[test]
fn a_recording_keeps_its_limit_and_says_so_in_its_last_line() {
    let many = || std::iter::once(begin()).chain((0..100).map(|_| server(&[7; 300])));
    for limit in [0, 300, 1_000, 5_000] {
        let (bytes, trouble) = written(limit, many());
        // The first and the last line are there in any case.
        assert!(bytes.len() as u64 <= limit.max(160), "{} of {limit}", bytes.len());
        assert_eq!(trouble, Some(Trouble::Limit { bytes: limit }));
        let recording = Recording::read(&*bytes).unwrap();
        assert_eq!(recording.records.last().map(|last| &last.what), Some(&What::Limit));
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_nothing_else() {
    let sink = Sink { works: Some(3), ..Sink::default() };
    let writer = Writer::new(sink.clone(), u64::MAX).unwrap();
    writer.record(begin());
    writer.record(server(b"a"));
    assert_eq!(writer.trouble(), None);
    writer.record(server(b"b"));
    writer.record(server(b"c"));
    let trouble = writer.trouble().unwrap();
    assert!(matches!(&trouble, Trouble::Failed { .. }), "{trouble}");
    assert_eq!(Recording::read(&**sink.bytes.lock().unwrap()).unwrap().records.len(), 2);
}

#[test]
fn a_line_that_was_cut_is_left_out_and_damage_is_named_without_content() {
    let (bytes, _) = written(u64::MAX, [begin(), server(b"abc"), server(b"def")]);
    let torn = Recording::read(&bytes[..bytes.len() - 9]).unwrap();
    assert!(torn.torn && torn.records.len() == 2);
    let text = String::from_utf8(bytes).unwrap();
    let damaged =
        text.replace("\"kind\":\"server\",\"bytes\":\"YWJj\"", "\"kind\":\"secret-word\"");
    let error = Recording::read(damaged.as_bytes()).unwrap_err();
    assert_eq!(error.line, 3);
    assert!(!error.to_string().contains("secret-word"), "{error}");
    for (other, says) in [
        (&b"\0\0\0\0\x02\x0a\0"[..], "this is no recording"),
        (b"", "this is no recording"),
        (b"{\"agentwire_recording\":9}\n", "has format 9"),
    ] {
        let error = Recording::read(other).unwrap_err();
        assert!(error.to_string().contains(says) && error.line == 1, "{error}");
    }
}
