//! The paths without sockets: decode of server messages, splitting of the stream, both together, the
//! session machine, requests and what goes into them, each beside plain prost, `BytesMut` and a naive splitter in the same run. `benches/README.md` says how to
//! read it.
#![allow(missing_docs, clippy::unwrap_used)]

mod hot;
mod rivals;
mod send;
mod session;

use std::hint::black_box;

use agentwire::codec::RunRequest;
use agentwire::codec::hot::{Incoming, decode};
use agentwire::connect::{Compression, Decoder, Envelope, Limits, Splitter, put_envelope};
use agentwire::context::{Context, Message};
use agentwire::conversation::{Conversation, encode_run};
use agentwire::ids::CountingIds;
use agentwire::proto::AgentServerMessage;
use agentwire::wire::{put_bytes, put_nested, put_str, put_uint};
use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher};
use prost::Message as _;
use rivals::{BytesMutSplitter, NaiveSplitter, Trimmed};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

/// Messages in one iteration.
const COUNT: usize = 1000;
const LARGE: Limits = Limits { message: 64 << 20, decompressed: 64 << 20, ..Limits::DEFAULT };

fn main() {
    divan::main();
}

const ASCII: &str = "the quick brown fox jumps over the lazy dog, ";
const WIDE: &str = "漢字はкириллицаと😀é";

/// `len` bytes of text, or a little less where a character does not fit.
fn text(len: usize, alphabet: &str, seed: usize) -> String {
    let alphabet = if alphabet == "wide" { WIDE } else { ASCII };
    let mut text = String::new();
    for c in alphabet.chars().cycle().skip(seed % 7) {
        if text.len() + c.len_utf8() > len {
            break;
        }
        text.push(c);
    }
    text
}

/// Text deltas as a server sends them.
fn deltas((len, alphabet): (usize, &str)) -> Vec<Vec<u8>> {
    let delta = |seed| {
        let mut out = Vec::new();
        put_nested(&mut out, 1, |out| {
            put_nested(out, 1, |out| put_str(out, 1, &text(len, alphabet, seed)));
        });
        out
    };
    (0..COUNT).map(delta).collect()
}

/// The same with an unknown field behind the text, so that the shape is not the usual one.
fn odd_deltas(texts: (usize, &str)) -> Vec<Vec<u8>> {
    let mut deltas = deltas(texts);
    deltas.iter_mut().for_each(|delta| put_uint(delta, 99, 1));
    deltas
}

fn stream(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    payloads.iter().for_each(|payload| put_envelope(&mut out, 0, payload));
    out
}

/// Runs `decode` over all payloads; it gives the length of the text, which is what a caller wants.
fn over(bencher: Bencher<'_, '_>, payloads: &[Vec<u8>], decode: impl Fn(&[u8]) -> usize) {
    bencher
        .counter(ItemsCount::new(COUNT))
        .counter(BytesCount::new(payloads.iter().map(Vec::len).sum::<usize>()))
        .bench_local(|| payloads.iter().map(|payload| decode(black_box(payload))).sum::<usize>());
}

#[inline(always)]
fn ours(payload: &[u8]) -> usize {
    match decode(payload) {
        Ok(Incoming::Text(text)) => text.len(),
        _ => 0,
    }
}

#[inline(always)]
fn prost_full(payload: &[u8]) -> usize {
    use agentwire::proto::{agent_server_message as server, interaction_update as update};
    match AgentServerMessage::decode(payload).map(|message| message.message) {
        Ok(Some(server::Message::InteractionUpdate(update))) => match update.message {
            Some(update::Message::TextDelta(delta)) => delta.text.len(),
            _ => 0,
        },
        _ => 0,
    }
}

#[inline(always)]
fn prost_trimmed(payload: &[u8]) -> usize {
    Trimmed::decode(payload).map_or(0, |message| message.text_len())
}

const TEXTS: [(usize, &str); 6] =
    [(4, "ascii"), (20, "ascii"), (60, "ascii"), (200, "ascii"), (20, "wide"), (200, "wide")];

#[divan::bench_group]
mod delta {
    use super::*;

    #[divan::bench(args = TEXTS)]
    fn ours(bencher: Bencher<'_, '_>, texts: (usize, &str)) {
        over(bencher, &deltas(texts), super::ours);
    }

    #[divan::bench(args = TEXTS)]
    fn ours_odd_shape(bencher: Bencher<'_, '_>, texts: (usize, &str)) {
        over(bencher, &odd_deltas(texts), super::ours);
    }

    #[divan::bench(args = TEXTS)]
    fn prost_full(bencher: Bencher<'_, '_>, texts: (usize, &str)) {
        over(bencher, &deltas(texts), super::prost_full);
    }

    #[divan::bench(args = TEXTS)]
    fn prost_trimmed(bencher: Bencher<'_, '_>, texts: (usize, &str)) {
        over(bencher, &deltas(texts), super::prost_trimmed);
    }
}

const CHUNKS: [usize; 4] = [1, 64, 1400, 16_384];

/// Runs `feed` over the chunks of a stream of 20-byte deltas.
fn chunked(bencher: Bencher<'_, '_>, size: usize, feed: impl Fn(std::slice::Chunks<'_, u8>)) {
    let body = stream(&deltas((20, "ascii")));
    bencher
        .counter(ItemsCount::new(COUNT))
        .counter(BytesCount::new(body.len()))
        .bench_local(|| feed(black_box(&body).chunks(size)));
}

#[divan::bench_group]
mod split {
    use super::*;

    #[divan::bench(args = CHUNKS)]
    fn ours(bencher: Bencher<'_, '_>, size: usize) {
        chunked(bencher, size, |chunks| {
            let mut splitter = Splitter::new(16 << 20);
            for mut chunk in chunks {
                while let Some(frame) = splitter.next(&mut chunk).unwrap() {
                    black_box(frame);
                }
            }
        });
    }

    #[divan::bench(args = CHUNKS)]
    fn bytes_mut(bencher: Bencher<'_, '_>, size: usize) {
        chunked(bencher, size, |chunks| {
            let mut splitter = BytesMutSplitter::default();
            chunks.for_each(|chunk| splitter.push(chunk, |frame| drop(black_box(frame))));
        });
    }

    #[divan::bench(args = CHUNKS)]
    fn naive(bencher: Bencher<'_, '_>, size: usize) {
        chunked(bencher, size, |chunks| {
            let mut splitter = NaiveSplitter::default();
            chunks.for_each(|chunk| splitter.push(chunk, |frame| drop(black_box(frame))));
        });
    }
}

#[divan::bench_group]
mod split_and_decode {
    use super::*;

    #[divan::bench(args = CHUNKS)]
    fn ours(bencher: Bencher<'_, '_>, size: usize) {
        chunked(bencher, size, |chunks| {
            let mut decoder = Decoder::new(Limits::default(), Compression::Gzip);
            for mut chunk in chunks {
                while let Some(envelope) = decoder.next(&mut chunk).unwrap() {
                    if let Envelope::Message(payload) = envelope {
                        black_box(super::ours(payload));
                    }
                }
            }
        });
    }

    #[divan::bench(args = CHUNKS)]
    fn ours_to_string(bencher: Bencher<'_, '_>, size: usize) {
        chunked(bencher, size, |chunks| {
            let mut decoder = Decoder::new(Limits::default(), Compression::Gzip);
            let mut turn = String::with_capacity(20 * COUNT);
            for mut chunk in chunks {
                while let Some(envelope) = decoder.next(&mut chunk).unwrap() {
                    if let Envelope::Message(payload) = envelope
                        && let Ok(Incoming::Text(text)) = decode(payload)
                    {
                        turn.push_str(&text);
                    }
                }
            }
            drop(black_box(turn));
        });
    }

    #[divan::bench(args = CHUNKS)]
    fn bytes_mut_prost_full(bencher: Bencher<'_, '_>, size: usize) {
        chunked(bencher, size, |chunks| {
            let mut splitter = BytesMutSplitter::default();
            let decode = |frame: Bytes| _ = black_box(prost_full(&frame));
            chunks.for_each(|chunk| splitter.push(chunk, decode));
        });
    }

    #[divan::bench(args = CHUNKS)]
    fn bytes_mut_prost_trimmed(bencher: Bencher<'_, '_>, size: usize) {
        chunked(bencher, size, |chunks| {
            let mut splitter = BytesMutSplitter::default();
            let decode = |frame: Bytes| _ = black_box(prost_trimmed(&frame));
            chunks.for_each(|chunk| splitter.push(chunk, decode));
        });
    }

    #[divan::bench(args = CHUNKS)]
    fn naive_prost_full(bencher: Bencher<'_, '_>, size: usize) {
        chunked(bencher, size, |chunks| {
            let mut splitter = NaiveSplitter::default();
            let decode = |frame: Vec<u8>| _ = black_box(prost_full(&frame));
            chunks.for_each(|chunk| splitter.push(chunk, decode));
        });
    }
}

/// One message of so many MiB, in chunks of 16 KiB: twice the bytes must take about twice the time.
#[divan::bench_group(sample_count = 15, sample_size = 1)]
mod large {
    use super::*;

    const MIB: [usize; 4] = [1, 10, 16, 32];

    fn body(mib: usize) -> Vec<u8> {
        stream(&[vec![0x5a; mib << 20]])
    }

    #[divan::bench(args = MIB)]
    fn ours(bencher: Bencher<'_, '_>, mib: usize) {
        let body = body(mib);
        bencher.counter(BytesCount::new(body.len())).bench_local(|| {
            let mut decoder = Decoder::new(LARGE, Compression::None);
            for mut chunk in body.chunks(16 << 10) {
                while let Some(envelope) = decoder.next(&mut chunk).unwrap() {
                    drop(black_box(envelope));
                }
            }
        });
    }

    #[divan::bench(args = MIB)]
    fn memcpy(bencher: Bencher<'_, '_>, mib: usize) {
        let body = body(mib);
        bencher.counter(BytesCount::new(body.len())).bench_local(|| {
            let mut out = Vec::with_capacity(body.len());
            body.chunks(16 << 10).for_each(|chunk| out.extend_from_slice(black_box(chunk)));
            drop(black_box(out));
        });
    }

    #[divan::bench(args = MIB)]
    fn bytes_mut(bencher: Bencher<'_, '_>, mib: usize) {
        let body = body(mib);
        bencher.counter(BytesCount::new(body.len())).bench_local(|| {
            let mut splitter = BytesMutSplitter::default();
            for chunk in body.chunks(16 << 10) {
                splitter.push(chunk, |frame| drop(black_box(frame)));
            }
        });
    }

    #[divan::bench(args = [1, 4, 10], sample_count = 3)]
    fn naive(bencher: Bencher<'_, '_>, mib: usize) {
        let body = body(mib);
        bencher.counter(BytesCount::new(body.len())).bench_local(|| {
            let mut splitter = NaiveSplitter::default();
            for chunk in body.chunks(16 << 10) {
                splitter.push(chunk, |frame| drop(black_box(frame)));
            }
        });
    }
}

#[divan::bench_group]
mod checkpoint {
    use super::*;

    /// A checkpoint of a conversation with so many turns.
    fn payload(turns: usize) -> Vec<u8> {
        let mut out = Vec::new();
        put_nested(&mut out, 3, |out| {
            put_bytes(out, 1, &[7; 32]);
            put_nested(out, 5, |out| {
                put_uint(out, 1, 12_345);
                put_uint(out, 2, 200_000);
            });
            (0..turns).for_each(|turn| put_bytes(out, 8, &[turn as u8; 32]));
            put_str(out, 9, "file:///srv/project");
        });
        out
    }

    #[divan::bench(args = [20, 200, 2000])]
    fn ours(bencher: Bencher<'_, '_>, turns: usize) {
        let payload = payload(turns);
        bencher
            .counter(BytesCount::new(payload.len()))
            .bench_local(|| drop(black_box(decode(black_box(&payload)))));
    }

    #[divan::bench(args = [20, 200, 2000])]
    fn prost_decode_and_encode(bencher: Bencher<'_, '_>, turns: usize) {
        let payload = payload(turns);
        bencher.counter(BytesCount::new(payload.len())).bench_local(|| {
            AgentServerMessage::decode(black_box(payload.as_slice())).unwrap().encode_to_vec()
        });
    }
}

/// A run request with so many turns of history, 5 KiB each: content-addressed blobs, so the floor
/// is the SHA-256 of the history.
#[divan::bench_group(sample_count = 20)]
mod request {
    use super::*;

    const TURNS: [usize; 2] = [20, 200];

    /// Bytes of text in a history.
    fn history(turns: usize) -> BytesCount {
        BytesCount::new(turns * (1024 + 4096))
    }

    fn context(turns: usize) -> Context {
        let mut context = Context::prompt("go").system("You are a helpful assistant.");
        let asked = context.messages.pop();
        for turn in 0..turns {
            context.push(Message::user(format!("{turn} {}", text(1024, "ascii", turn))));
            context.push(Message::assistant(format!("{turn} {}", text(4096, "ascii", turn))));
        }
        context.messages.extend(asked);
        context
    }

    fn request(turns: usize) -> RunRequest {
        let request_id = "00000000-0000-4000-8000-000000000001".to_owned();
        RunRequest {
            request_id,
            model: "composer-2".into(),
            context: context(turns),
            ..RunRequest::default()
        }
    }

    #[divan::bench(args = TURNS)]
    fn ours_first(bencher: Bencher<'_, '_>, turns: usize) {
        let request = request(turns);
        bencher.counter(history(turns)).bench_local(|| {
            encode_run(&request, &mut Conversation::with_id("c"), &mut CountingIds::hex()).unwrap()
        });
    }

    /// The history was sent before; one message is new.
    #[divan::bench(args = TURNS)]
    fn ours_next(bencher: Bencher<'_, '_>, turns: usize) {
        let mut request = request(turns);
        let mut conversation = Conversation::with_id("c");
        encode_run(&request, &mut conversation, &mut CountingIds::hex()).unwrap();
        request.context.push(Message::assistant("done"));
        request.context.push(Message::user("and now?"));
        encode_run(&request, &mut conversation, &mut CountingIds::hex()).unwrap();
        bencher.counter(history(turns)).bench_local(|| {
            encode_run(&request, &mut conversation, &mut CountingIds::hex()).unwrap()
        });
    }

    #[divan::bench(args = TURNS)]
    fn prost_json_and_hash(bencher: Bencher<'_, '_>, turns: usize) {
        let context = context(turns);
        bencher.counter(history(turns)).bench_local(|| rivals::encode_request(&context));
    }

    #[divan::bench(args = TURNS)]
    fn sha256_alone(bencher: Bencher<'_, '_>, turns: usize) {
        let texts = rivals::history_texts(&context(turns));
        bencher.counter(history(turns)).bench_local(|| rivals::hash_all(&texts));
    }
}
