//! What is sent besides plain requests: tool definitions, images, checkpoints that are edited.

use std::sync::Arc;

use agentwire::codec::image::{self, Place};
use agentwire::codec::{Naming, RunRequest, ToolContext, reply};
use agentwire::context::{Context, Image, Message, Part, Tool, UserContent};
use agentwire::conversation::{Conversation, encode_run};
use agentwire::ids::CountingIds;
use agentwire::proto::{self, agent_client_message};
use agentwire::wire::{put_bytes, put_nested, put_uint};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use prost::Message as _;
use sha2::{Digest, Sha256};

fn request(context: Context) -> RunRequest {
    RunRequest {
        request_id: "00000000-0000-4000-8000-000000000001".to_owned(),
        model: "composer-2".into(),
        context,
        ..RunRequest::default()
    }
}

#[divan::bench_group(sample_count = 30)]
mod tools {
    use super::*;

    /// Their schemas have 1,000 bytes each; a service takes 120,000.
    const TOOLS: [usize; 2] = [10, 100];

    fn list(tools: usize) -> Vec<Arc<Tool>> {
        let tool = |n: usize| {
            let property = serde_json::json!({"type": "string", "description": "x".repeat(90)});
            let properties: serde_json::Map<_, _> =
                (0..7).map(|p| (format!("property_{p}"), property.clone())).collect();
            let parameters = serde_json::json!({"type": "object", "properties": properties});
            let description = "what it does ".repeat(9);
            Arc::new(Tool { name: format!("tool_{n}"), description, parameters })
        };
        (0..tools).map(tool).collect()
    }

    fn context(tools: usize) -> ToolContext {
        ToolContext::new(&list(tools), None, &Naming::default()).unwrap()
    }

    /// Once in a session.
    #[divan::bench(args = TOOLS)]
    fn from_json(bencher: Bencher<'_, '_>, tools: usize) {
        let list = list(tools);
        bencher.bench_local(|| ToolContext::new(&list, None, &Naming::default()).unwrap());
    }

    /// Each time that the service asks.
    #[divan::bench(args = TOOLS)]
    fn again(bencher: Bencher<'_, '_>, tools: usize) {
        let context = context(tools);
        bencher.bench_local(|| reply::request_context_parts(7, "exec-7", black_box(&context)));
    }

    /// The same in one piece.
    #[divan::bench(args = TOOLS)]
    fn again_copied(bencher: Bencher<'_, '_>, tools: usize) {
        let context = context(tools);
        bencher.bench_local(|| reply::request_context(7, "exec-7", black_box(&context)));
    }

    /// The generated type of the same answer, encoded.
    #[divan::bench(args = TOOLS)]
    fn prost_prebuilt(bencher: Bencher<'_, '_>, tools: usize) {
        let answer = reply::request_context(7, "exec-7", &context(tools));
        let message = proto::AgentClientMessage::decode(&answer[5..]).unwrap();
        bencher.bench_local(|| black_box(&message).encode_to_vec());
    }
}

/// A megabyte of pixels as base64 in one line.
fn picture() -> (Vec<u8>, String) {
    let pixels: Vec<u8> =
        (0..1_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let text = STANDARD.encode(&pixels);
    (pixels, text)
}

#[divan::bench_group(sample_count = 30)]
mod images {
    use super::*;

    const PLACE: Place<'_> = Place::Selected { index: 0, mime_type: "image/png" };

    #[divan::bench]
    fn base64_ours(bencher: Bencher<'_, '_>) {
        let (_, text) = picture();
        bencher
            .counter(BytesCount::new(text.len()))
            .bench_local(|| image::decode(black_box(&text), PLACE).unwrap());
    }

    /// Drop separators, then decode.
    #[divan::bench]
    fn base64_classic(bencher: Bencher<'_, '_>) {
        let (_, text) = picture();
        bencher.counter(BytesCount::new(text.len())).bench_local(|| {
            let stripped: Vec<u8> =
                black_box(&text).bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
            STANDARD.decode(stripped).unwrap()
        });
    }

    #[divan::bench]
    fn request_ours(bencher: Bencher<'_, '_>) {
        let image = Image { data: picture().1, mime_type: "image/png".to_owned() };
        let parts = vec![Part::Text { text: "what is this?".to_owned() }, Part::Image(image)];
        let mut context = Context::default();
        context.push(Message::User { content: UserContent::Parts(parts) });
        let request = request(context);
        bencher.bench_local(|| {
            encode_run(&request, &mut Conversation::with_id("c"), &mut CountingIds::hex()).unwrap()
        });
    }

    /// What every way has to do: the image's name is its hash.
    #[divan::bench]
    fn sha256_alone(bencher: Bencher<'_, '_>) {
        let (pixels, _) = picture();
        bencher.bench_local(|| Sha256::digest(black_box(&pixels)));
    }
}

#[divan::bench_group(sample_count = 60)]
mod checkpoint_edit {
    use super::*;

    const TURNS: [usize; 3] = [20, 200, 2_000];

    /// A state with so many turns, and a prompt of two messages that the next request replaces.
    fn state(turns: usize) -> Bytes {
        let mut out = Vec::new();
        put_bytes(&mut out, 1, &[7; 32]);
        put_bytes(&mut out, 1, &[8; 32]);
        put_nested(&mut out, 5, |out| {
            put_uint(out, 1, 12_345);
            put_uint(out, 2, 200_000);
        });
        (0..turns).for_each(|turn| put_bytes(&mut out, 8, &[turn as u8; 32]));
        // What no schema knows goes back as it came.
        put_bytes(&mut out, 900, b"unknown");
        out.into()
    }

    /// The whole request of a turn behind the checkpoint: its bytes are cut and sent back.
    #[divan::bench(args = TURNS)]
    fn ours(bencher: Bencher<'_, '_>, turns: usize) {
        let request = request(Context::prompt("and now?").system("Be brief."));
        let mut known = Conversation::with_id("c");
        known.commit(state(turns)).unwrap();
        bencher.with_inputs(|| known.clone()).bench_local_values(|mut conversation| {
            encode_run(&request, &mut conversation, &mut CountingIds::hex()).unwrap()
        });
    }

    /// The state decoded, its prompt replaced, everything encoded. It loses what it does not know.
    #[divan::bench(args = TURNS)]
    fn prost_decode_and_encode(bencher: Bencher<'_, '_>, turns: usize) {
        let raw = state(turns);
        bencher.bench_local(|| {
            let mut state = proto::ConversationStateStructure::decode(black_box(&raw[..])).unwrap();
            state.root_prompt_messages_json = vec![vec![9; 32].into()];
            let run =
                proto::AgentRunRequest { conversation_state: Some(state), ..Default::default() };
            let message = agent_client_message::Message::RunRequest(Box::new(run));
            proto::AgentClientMessage { message: Some(message) }.encode_to_vec()
        });
    }
}
