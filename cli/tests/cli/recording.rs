//! `--record`, and what `decode` and `replay` make of it.

use std::fs;
use std::path::Path;

use crate::chat::Service;
use crate::support::{Done, agentwire, finish, run, run_with};
use base64::Engine as _;
use serde_json::Value;

/// `chat --local` with a recording.
fn recorded(file: &Path, args: &[&str]) -> Done {
    let mut command = agentwire(["chat", "--local", "hello there", "--record"]);
    command.arg(file).args(args);
    finish(command.spawn().unwrap())
}

fn read(command: &str, file: &Path, args: &[&str]) -> Done {
    let mut command = agentwire([command]);
    command.arg(file).args(args);
    finish(command.spawn().unwrap())
}

fn remarks(done: &Done) -> usize {
    done.stderr.lines().filter(|line| line.starts_with("note: the recording")).count()
}

#[test]
fn a_chat_is_recorded_decoded_and_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hello.jsonl");
    let chat = recorded(&file, &[]).expect(0);
    assert_eq!(chat.stderr, "");
    let replay = read("replay", &file, &[]).expect(0);
    assert_eq!(replay.stdout(), chat.stdout());

    let lines = read("decode", &file, &[]).expect(0).lines();
    let of = |side: &'static str| lines.iter().filter(move |line| line["from"] == side).cloned();
    let text: String = of("server")
        .filter_map(|line| {
            line["message"]["interaction_update"]["text_delta"]["text"].as_str().map(str::to_owned)
        })
        .collect();
    assert_eq!(text.trim_end(), chat.stdout().trim_end());
    let first = of("client").next().unwrap();
    assert!(first["message"]["run_request"].is_object(), "{first}");
    assert_eq!((&first["stream"], &first["run"]), (&1.into(), &1.into()));
    let kinds: Vec<_> = lines.iter().filter_map(|line| line["kind"].as_str()).collect();
    assert!(kinds.starts_with(&["run", "open", "head"]), "{kinds:?}");
    assert!(kinds.contains(&"end"), "{kinds:?}");

    // One side alone is what a captured stream prints, and goes back to its bytes.
    let server = read("decode", &file, &["--from", "server"]).expect(0);
    let bytes = run_with(["encode", "--from", "server", "--json", "-"], &server.stdout).expect(0);
    let again = run_with(["decode", "--from", "server", "-"], &bytes.stdout).expect(0);
    assert_eq!(again.stdout(), server.stdout());
}

#[test]
fn the_lines_of_a_replay_are_those_of_the_chat() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hello.jsonl");
    let chat = recorded(&file, &["--json", "--show-thinking"]).expect(0);
    let replay = read("replay", &file, &["--json", "--show-thinking"]).expect(0);
    assert_eq!(replay.stdout(), chat.stdout());
    let other = read("replay", &file, &["--run", "2", "--json"]).expect(2);
    assert!(other.stdout().contains("no run 2"), "{}", other.stdout());
}

/// What fails is recorded as well, and fails again in the same way.
#[test]
fn a_failure_is_met_again_with_its_exit_code() {
    let service =
        Service::new("[[rules]]\nsteps = [{ text = \"a\" }, { error = \"internal\" }]", None);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("failed.jsonl");
    let mut command = agentwire(["chat", "--endpoint", &service.url(), "x", "--record"]);
    command.arg(&file).env("AGENTWIRE_TOKEN", "tok-1");
    let chat = finish(command.spawn().unwrap()).expect(1);
    let replay = read("replay", &file, &[]).expect(1);
    assert_eq!((replay.stdout(), &replay.stderr), (chat.stdout(), &chat.stderr));
}

#[cfg(unix)]
#[test]
fn the_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.jsonl");
    for before in [None, Some(0o644)] {
        if let Some(mode) = before {
            fs::write(&file, "what was there").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        }
        recorded(&file, &[]).expect(0);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(&file).unwrap().contains("what was there"));
    }
}

#[test]
fn a_limit_ends_the_recording_and_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.jsonl");
    let chat = recorded(&file, &["--record-limit", "4K"]).expect(0);
    assert!(chat.stdout().contains("hello there"));
    assert_eq!(remarks(&chat), 1, "{}", chat.stderr);
    assert!(chat.stderr.contains("limit of 4096 bytes"), "{}", chat.stderr);
    assert!(fs::metadata(&file).unwrap().len() <= 4_096);
    let last = read("decode", &file, &[]).expect(0).lines().pop().unwrap();
    assert_eq!(last["kind"], "limit");
    let replay = read("replay", &file, &[]).expect(1);
    assert!(replay.stderr.contains("the recording ends before the run did"), "{}", replay.stderr);
    let wrong = recorded(&file, &["--record-limit", "much"]).expect(2);
    assert!(wrong.stderr.contains("such as 500000, 64K or 1G"), "{}", wrong.stderr);
}

/// A disk that is full from the start, and one that fills up.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fails_does_not_end_the_turn() {
    let refused = recorded(Path::new("/dev/full"), &[]).expect(2);
    assert!(refused.stderr.contains("--record /dev/full cannot be written"), "{}", refused.stderr);
    let nowhere = recorded(Path::new("/nowhere/r.jsonl"), &[]).expect(2);
    assert!(nowhere.stderr.contains("cannot be written"), "{}", nowhere.stderr);
    // A pipe that nobody reads any more after its first bytes.
    let script =
        r#"exec 3> >(head -c 40 >/dev/null); "$0" chat --local "hello there" --record /dev/fd/3"#;
    let mut command = std::process::Command::new("bash");
    command.args(["-c", script, env!("CARGO_BIN_EXE_agentwire")]);
    command.env("AGENTWIRE_CACHE_DIR", "");
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let chat = finish(command.spawn().unwrap()).expect(0);
    assert!(chat.stdout().contains("hello there"));
    assert_eq!(remarks(&chat), 1, "{}", chat.stderr);
}

/// The service repeats the token in its head, its text and its error.
#[test]
fn the_token_is_not_in_the_file() {
    let token = "tok-5f2c-Zq81-kk77";
    let script = format!(
        r#"[[rules]]
steps = [
  {{ head = {{ headers = {{ "x-echo" = "{token}" }} }} }},
  {{ text = {{ text = "you are {token}", delta = 3 }} }},
  {{ text = {{ text = "you are {token}", delta = 1000 }} }},
  {{ error = {{ code = "internal", message = "bad token {token}" }} }},
]"#
    );
    let service = Service::new(&script, Some(token));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.jsonl");
    let mut command = agentwire(["chat", "--endpoint", &service.url(), "x", "--record"]);
    command.arg(&file).env("AGENTWIRE_TOKEN", token);
    let chat = finish(command.spawn().unwrap()).expect(1);
    assert!(chat.stdout().contains(token), "the model's own words are not touched");
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains(token) && !text.to_ascii_lowercase().contains("authorization"));
    for line in text.lines().skip(1) {
        let line: Value = serde_json::from_str(line).unwrap();
        let bytes = line["bytes"].as_str().unwrap_or_default();
        let bytes = base64::engine::general_purpose::STANDARD.decode(bytes).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(token), "{line}");
    }
    let decoded = read("decode", &file, &[]).expect(0);
    assert!(decoded.stdout().contains("******") && !decoded.stdout().contains(token));
    read("replay", &file, &[]).expect(1);
}

#[test]
fn an_agent_is_recorded_run_by_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.jsonl");
    let mut command = agentwire(["agent", "--local", "hello there", "--record"]);
    command.arg(&file);
    let agent = finish(command.spawn().unwrap()).expect(0);
    let replay = read("replay", &file, &[]).expect(0);
    assert!(replay.stdout().contains("hello there"), "{}", replay.stdout());
    assert!(agent.stdout().contains(replay.stdout().trim_end()), "{}", agent.stdout());
}

#[test]
fn what_is_no_recording_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.txt");
    fs::write(&file, "{\"not\": \"one\"}\n").unwrap();
    for command in ["replay", "decode"] {
        let done = read(command, &file, &[]).expect(1);
        assert!(done.stderr.contains("line 1: this is no recording"), "{}", done.stderr);
    }
    // Bytes of a stream need their side; of a damaged recording comes what is whole.
    let bytes = run_with(["decode", "-"], b"\0\0\0\0\0").expect(2);
    assert!(bytes.stderr.contains("--from"), "{}", bytes.stderr);
    let file = folder.path().join("r.jsonl");
    recorded(&file, &[]).expect(0);
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, whole.replacen("\"kind\":\"end\"", "\"kind\":\"then\"", 1)).unwrap();
    let done = read("decode", &file, &[]).expect(1);
    assert!(done.stderr.contains("it is no record of this format"), "{}", done.stderr);
    assert!(done.lines().len() > 5);
    fs::write(&file, whole.trim_end().trim_end_matches('}')).unwrap();
    assert_eq!(read("decode", &file, &[]).expect(0).lines().pop().unwrap()["torn"], true);
    let replay = read("replay", &file, &[]).expect(0);
    assert!(replay.stderr.contains("last line is missing"), "{}", replay.stderr);
    let help = run(["replay", "--help"]).expect(0);
    assert!(help.stdout().contains("without a network"), "{}", help.stdout());
}
