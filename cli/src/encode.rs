//! `encode`: the bytes of a run request, or of what `decode` printed.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use agentwire::Error;
use agentwire::codec::{History, Model, Naming, RunRequest};
use agentwire::conversation::{Conversation, encode_run};
use agentwire::ids::{CountingIds, IdSource, RandomIds};
use agentwire::inspect::envelope_from_json;
use clap::ValueEnum;
use serde_json::Value;

use crate::chat::read_context;
use crate::decode::Side;
use crate::failure::Failure;
use crate::input::{self, Source};
use crate::output;

/// The longest line of JSON that is read: an envelope of the largest size, in base64 and once more
/// as text, with room.
const LINE_LIMIT: u64 = 128 << 20;

/// The request id under --fixed-ids; without a conversation id `legacy` uses it as that too.
const FIXED_REQUEST_ID: &str = "req-1";

/// Write bytes as they go over the wire.
///
/// With --context: the enveloped run request that `chat` would send. With --json: the envelopes that
/// `decode` printed, as the same bytes.
#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("what").required(true).args(["context", "json"])),
    after_help = "Examples:
  agentwire encode --context context.json | agentwire decode --from client
  agentwire decode --from server a.bin | agentwire encode --from server --json - | cmp a.bin"
)]
pub(crate) struct Args {
    /// History, system prompt and tools as JSON
    #[arg(long, value_name = "FILE")]
    context: Option<PathBuf>,

    /// Model id
    #[arg(long, value_name = "ID", default_value = "composer-2", conflicts_with = "json")]
    model: String,

    /// How the history is sent
    #[arg(long, value_name = "MODE", default_value = "full", conflicts_with = "json")]
    history: Mode,

    /// Conversation id; without one a fresh one is drawn
    #[arg(long, value_name = "ID", conflicts_with = "json")]
    conversation: Option<String>,

    /// Ids that count from 1 instead of random ones, so that the same context gives the same bytes
    #[arg(long, conflicts_with = "json")]
    fixed_ids: bool,

    /// Lines that `decode` printed; `-` is stdin
    #[arg(long, value_name = "FILE|-", requires = "from")]
    json: Option<OsString>,

    /// Which side sent them
    #[arg(long, value_name = "SIDE", conflicts_with = "context")]
    from: Option<Side>,
}

/// How the history of a context is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Every message, as the service builds the prompt from it
    Full,
    /// As the reference client of 2026-06 sent it, names included
    Legacy,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match (&args.json, args.from, &args.context) {
        (Some(json), Some(side), _) => envelopes(&Source::from(json.clone()), side),
        (_, _, Some(context)) => request(context, args),
        _ => Err(Failure::usage("give --context FILE, or --json FILE with --from")),
    }
}

fn request(context: &Path, args: &Args) -> Result<(), Failure> {
    let (history, naming) = match args.history {
        Mode::Full => (History::Full, Naming::default()),
        Mode::Legacy => (History::Legacy, Naming::reference()),
    };
    let mut ids: Box<dyn IdSource> =
        if args.fixed_ids { Box::new(CountingIds::hex()) } else { Box::new(RandomIds) };
    let request_id =
        if args.fixed_ids { FIXED_REQUEST_ID.to_owned() } else { ids.next_id().to_string() };
    let request = RunRequest {
        conversation_id: args.conversation.clone(),
        request_id,
        model: Model::new(&args.model),
        context: read_context(context)?,
        history,
        naming,
        ..RunRequest::default()
    };
    let encoded = encode_run(&request, &mut Conversation::new(), ids.as_mut())?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(&encoded.envelope).and_then(|()| stdout.flush()).map_err(output::failed)
}

/// Turns line after line back into its envelope.
fn envelopes(source: &Source, side: Side) -> Result<(), Failure> {
    let mut input = BufReader::new(source.open()?);
    let mut stdout = BufWriter::new(io::stdout().lock());
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = (&mut input).take(LINE_LIMIT).read_until(b'\n', &mut line);
        let read =
            read.map_err(|error| Failure::usage(format!("cannot read {source}: {error}")))?;
        if read == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        // What came before a bad line is whole and is written.
        let envelope = match envelope(side, &line) {
            Ok(envelope) => envelope,
            Err(fault) => {
                stdout.flush().map_err(output::failed)?;
                let text = format!("{source}, line {number}: {fault}");
                return Err(Failure::Failed(Error::invalid(text)));
            }
        };
        stdout.write_all(&envelope).map_err(output::failed)?;
    }
    stdout.flush().map_err(output::failed)
}

fn envelope(side: Side, line: &[u8]) -> Result<Vec<u8>, String> {
    if line.len() as u64 == LINE_LIMIT {
        return Err(format!("it is longer than {LINE_LIMIT} bytes"));
    }
    let value: Value = serde_json::from_slice(line).map_err(|error| input::json_fault(&error))?;
    envelope_from_json(side.into(), &value).map_err(|error| error.to_string())
}
