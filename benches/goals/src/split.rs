//! Goals 6 to 8: envelopes out of chunks.

use std::hint::black_box;

use agentwire::connect::{Compression, Decoder, Envelope, Limits, Splitter};
use bytes::BytesMut;
use tokio_util::codec::{Decoder as _, LengthDelimitedCodec};

use crate::decode::ours as decode;
use crate::race::{Race, Results};
use crate::rivals::{self, BytesMutSplitter, NaiveSplitter};
use crate::table::Table;
use crate::{data, node};

const COUNT: usize = 2_000;

pub fn judge(table: &mut Table) {
    let payloads: Vec<_> = (0..COUNT).map(|seed| data::delta(&data::ascii(20, seed))).collect();
    let body = data::stream(&payloads);
    for (size, wanted) in [(1, 0.95), (64, 3.0), (1_400, 6.0), (16_384, 6.0)] {
        let results = split(&body, size);
        let what = format!("split, chunks of {size} B, against BytesMut");
        table.at_least("6", what, wanted, results.times_faster("ours", "bytes_mut"));
        if size >= 1_400 {
            let what = format!("split, chunks of {size} B, against LengthDelimitedCodec");
            table.at_least("6", what, 12.0, results.times_faster("ours", "length_delimited"));
        }
    }
    for size in [1_400, 16_384] {
        let results = split_and_decode(&body, size);
        let what = |rival| {
            format!("split and decode, chunks of {size} B, against BytesMut and prost, {rival}")
        };
        table.at_least("7", what("full"), 20.0, results.times_faster("ours", "full"));
        table.at_least("7", what("trimmed"), 12.0, results.times_faster("ours", "trimmed"));
        if let Some(script) = node::split_and_decode(&body, size, COUNT) {
            let ours = results.get("ours").time.as_secs_f64() / COUNT as f64;
            let what = format!("split and decode, chunks of {size} B, against TypeScript on Node");
            table.at_least("7", what, 300.0, script / ours);
        }
    }
    large(table);
}

fn split(body: &[u8], size: usize) -> Results {
    let chunks = || black_box(body).chunks(size);
    Race::new(if size == 1 { 40 } else { 200 })
        .case("ours", || {
            let mut splitter = Splitter::new(16 << 20);
            let mut sum = 0;
            for mut chunk in chunks() {
                while let Ok(Some(frame)) = splitter.next(&mut chunk) {
                    sum += black_box(frame).payload.len() as u64;
                }
            }
            sum
        })
        .case("bytes_mut", || {
            let mut splitter = BytesMutSplitter::default();
            let mut sum = 0;
            chunks().for_each(|chunk| {
                splitter.push(chunk, |frame| sum += black_box(frame).len() as u64)
            });
            sum
        })
        .case("length_delimited", || {
            let mut codec = LengthDelimitedCodec::builder()
                .length_field_offset(1)
                .length_field_length(4)
                .num_skip(5)
                .max_frame_length(16 << 20)
                .new_codec();
            let mut buffer = BytesMut::new();
            let mut sum = 0;
            for chunk in chunks() {
                buffer.extend_from_slice(chunk);
                while let Ok(Some(frame)) = codec.decode(&mut buffer) {
                    sum += black_box(frame).len() as u64;
                }
            }
            sum
        })
        .run()
}

/// What the crate's own session does with a body.
pub fn ours(body: &[u8], size: usize) -> u64 {
    let mut decoder = Decoder::new(Limits::default(), Compression::Gzip);
    let mut sum = 0;
    for mut chunk in black_box(body).chunks(size) {
        while let Ok(Some(envelope)) = decoder.next(&mut chunk) {
            if let Envelope::Message(payload) = envelope {
                sum += decode(payload) as u64;
            }
        }
    }
    sum
}

/// The usual splitter before a decoder, which may be inlined as ours may.
#[inline(always)]
fn by_bytes_mut(body: &[u8], size: usize, decode: impl Fn(bytes::Bytes) -> usize) -> u64 {
    let mut splitter = BytesMutSplitter::default();
    let mut sum = 0;
    for chunk in black_box(body).chunks(size) {
        splitter.push(chunk, |frame| sum += decode(frame) as u64);
    }
    sum
}

fn split_and_decode(body: &[u8], size: usize) -> Results {
    Race::new(200)
        .case("ours", || ours(body, size))
        .case("full", || by_bytes_mut(body, size, |frame| rivals::full(frame)))
        .case("trimmed", || by_bytes_mut(body, size, |frame| rivals::trimmed(frame)))
        .run()
}

/// One message of 10 MB in chunks of 16 KiB.
fn large(table: &mut Table) {
    const SIZE: usize = 10_000_000;
    let body = data::stream([&vec![0x5a; SIZE]]);
    let limits = Limits::default();
    let chunks = || black_box(&body).chunks(16 << 10);
    let results = Race::new(40)
        .case("ours", || {
            let mut decoder = Decoder::new(limits, Compression::None);
            let mut sum = 0;
            for mut chunk in chunks() {
                while let Ok(Some(Envelope::Message(payload))) = decoder.next(&mut chunk) {
                    sum += black_box(payload).len() as u64;
                }
            }
            sum
        })
        .case("memcpy", || {
            let mut out = Vec::with_capacity(SIZE);
            chunks().for_each(|chunk| out.extend_from_slice(black_box(chunk)));
            black_box(&out).len() as u64 - 5
        })
        .run();
    let took = results.get("ours");
    let against = took.time.as_secs_f64() / results.get("memcpy").time.as_secs_f64();
    table.at_most("8", "10 MB message in 16 KiB chunks, time of memcpy", 1.3, against, "x");
    let peak = took.heap.peak as f64 / SIZE as f64;
    table.at_most("8", "10 MB message, peak memory of its size", 1.1, peak, "x");
    let naive = Race::new(1)
        .case("naive", || {
            let mut splitter = NaiveSplitter::default();
            let mut sum = 0;
            chunks().for_each(|chunk| {
                splitter.push(chunk, |frame| sum += black_box(frame).len() as u64)
            });
            sum
        })
        .run();
    let ratio = naive.get("naive").time.as_secs_f64() / took.time.as_secs_f64();
    table.at_least("8", "10 MB message against the naive algorithm", 300.0, ratio);
}
