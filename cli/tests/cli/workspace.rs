//! `chat --workspace`: what the model may do with files and commands, and who is asked.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use agentwire::server::Script;
use agentwire::server::serve::{Report, Server};
use serde_json::{Value, json};

use crate::support::{Done, agentwire, finish, run};

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    fs::write(folder.path().join("README.md"), "# A project\n\nIt has two lines.\n").unwrap();
    fs::write(folder.path().join("src/main.rs"), "fn main() {}\n").unwrap();
    folder
}

/// A server in this process that asks these execs, one after the other, and says each answer.
struct Service {
    server: Server,
    runtime: tokio::runtime::Runtime,
}

impl Service {
    fn asking(asks: &[Value]) -> Self {
        let steps =
            asks.iter().flat_map(|ask| [json!({"ask": ask}), json!({"text": "<{{answer}}>\n"})]);
        let steps: Vec<_> = steps.chain([json!({"turn_end": {}})]).collect();
        Self::playing(&json!({"rules": [{"steps": steps}]}))
    }

    fn playing(script: &Value) -> Self {
        let script = Script::from_json(&script.to_string()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let server = runtime.block_on(Server::builder().script(script).cleartext().bind()).unwrap();
        Self { server, runtime }
    }

    fn command(&self, folder: &Path, args: &[&str]) -> std::process::Command {
        let url = self.server.url();
        let mut command = agentwire(["chat", "--endpoint", &url, "--workspace"]);
        command.arg(folder).args(args).arg("go").env("AGENTWIRE_TOKEN", "tok-1");
        command
    }

    fn chat(&self, folder: &Path, args: &[&str]) -> Done {
        finish(self.command(folder, args).spawn().unwrap()).expect(0)
    }

    fn report(self) -> Report {
        let report = self.runtime.block_on(self.server.shutdown());
        assert_eq!((report.violations.len(), report.unanswered), (0, 0), "{report:?}");
        report
    }
}

fn write_ask() -> Value {
    json!({"exec": "write_args", "args": {"path": "new.txt", "file_text": "made"}})
}

fn shell_ask(command: &str) -> Value {
    json!({"exec": "shell_args", "args": {"command": command}})
}

#[test]
fn local_lists_the_folder_reads_a_file_and_answers() {
    let folder = folder();
    let path = folder.path().to_str().unwrap();
    let done = run(["chat", "--local", "--workspace", path, "what is in here?"]).expect(0);
    for part in ["README.md", "src/main.rs", "# A project", "You asked: what is in here?"] {
        assert!(done.stdout().contains(part), "{part}: {}", done.stdout());
    }
    assert_eq!(done.stderr, "workspace: list .: 2 files\nworkspace: read README.md: 3 lines\n");
    assert!(!done.stdout().contains(path), "no local path goes out");
    // The file that is named is the one that is read.
    let done = run(["chat", "--local", "--workspace", path, "explain main.rs"]).expect(0);
    assert!(done.stdout().contains("fn main() {}"), "{}", done.stdout());
    assert!(done.stderr.contains("read src/main.rs: 1 line"), "{}", done.stderr);
}

#[test]
fn without_a_terminal_only_what_is_allowed_is_done() {
    let folder = folder();
    let made = folder.path().join("new.txt");
    let asks = [write_ask(), shell_ask("echo by shell > by-shell; echo out; echo err >&2")];
    let service = Service::asking(&asks);
    let done = service.chat(folder.path(), &[]);
    assert!(done.stdout().contains("--allow write") && done.stdout().contains("--allow shell"));
    assert!(done.stderr.contains("workspace: write new.txt: permission denied"), "{}", done.stderr);
    assert!(!made.exists() && !folder.path().join("by-shell").exists());

    let done = service.chat(folder.path(), &["--allow", "write"]);
    assert!(made.exists() && done.stdout().contains("--allow shell"), "{}", done.stdout());
    assert!(!folder.path().join("by-shell").exists());

    let done = service.chat(folder.path(), &["--allow", "read", "--allow", "shell"]);
    assert!(folder.path().join("by-shell").exists() && done.stdout().contains("--allow write"));
    for line in ["workspace: run echo by shell", "  | out", "  | err"] {
        assert!(done.stderr.contains(line), "{line}: {}", done.stderr);
    }
    assert_eq!(service.report().requests, 6, "each time the list of models, then the run");
}

#[test]
fn a_run_that_breaks_off_goes_on_only_where_nothing_was_changed() {
    let folder = folder();
    let broken_off = |ask: Value| {
        Service::playing(&json!({"rules": [
            {"times": 1, "steps": [{"ask": ask}, "cut"]},
            {"steps": [{"text": "done\n"}, {"turn_end": {}}]},
        ]}))
    };
    let args = ["--retries", "1", "--allow", "write"];
    let read = json!({"exec": "read_args", "args": {"path": "README.md"}});
    assert_eq!(broken_off(read).chat(folder.path(), &args).stdout(), "done\n");

    let service = broken_off(write_ask());
    let done = finish(service.command(folder.path(), &args).spawn().unwrap()).expect(1);
    assert!(done.stderr.contains("may have changed something"), "{}", done.stderr);
}

#[test]
fn json_lines_tell_every_step() {
    let folder = folder();
    let read = json!({"exec": "read_args", "args": {"path": "README.md"}});
    let stream = json!({"exec": "shell_stream_args", "args": {"command": "echo out; exit 3"}});
    let service = Service::asking(&[read, write_ask(), stream]);
    let done = service.chat(folder.path(), &["--json", "--allow", "shell"]);
    assert_eq!(done.stderr, "");
    let lines = done.lines();
    let steps: Vec<_> = lines
        .iter()
        .filter(|line| line["type"] == "workspace")
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
            [text("state"), text("tool"), text("outcome"), text("stream"), text("text")]
        })
        .collect();
    let step = |parts: [&str; 5]| parts.map(str::to_owned);
    assert_eq!(steps[0], step(["started", "read_args", "-", "-", "read README.md"]));
    assert_eq!(steps[1], step(["finished", "read_args", "success", "-", "3 lines"]));
    assert_eq!(steps[2], step(["started", "write_args", "-", "-", "write new.txt"]));
    assert_eq!(steps[3][..3], step(["finished", "write_args", "permission_denied", "-", "-"])[..3]);
    assert_eq!(steps[4], step(["started", "shell_stream_args", "-", "-", "run echo out; exit 3"]));
    assert_eq!(steps[5], step(["output", "shell_stream_args", "-", "stdout", "out\n"]));
    assert_eq!(steps[6], step(["finished", "shell_stream_args", "failure", "-", "exit code 3"]));
    assert_eq!(steps.len(), 7);
    assert_eq!(lines.last().unwrap()["type"], "done");
    service.report();
}

#[test]
fn an_aborted_command_is_said_to_be_given_up() {
    let folder = folder();
    let mut ask = shell_ask("echo up; sleep 600");
    ask["abort_after_ms"] = json!(300);
    let service = Service::asking(&[ask]);
    let done = service.chat(folder.path(), &["--allow", "shell"]);
    assert!(done.stderr.contains("given up"), "{}", done.stderr);
    service.report();
}

#[test]
fn wrong_arguments_are_found_before_anything_is_asked() {
    let folder = folder();
    let path = folder.path().to_str().unwrap();
    let missing = run(["chat", "--local", "--workspace", "/no/such/folder", "hi"]).expect(2);
    assert!(missing.stderr.contains("root of the workspace"), "{}", missing.stderr);
    let file = format!("{path}/README.md");
    run(["chat", "--local", "--workspace", &file, "hi"]).expect(2);
    let unknown = ["chat", "--local", "--workspace", path, "--allow", "all", "hi"];
    assert!(run(unknown).expect(2).stderr.contains("read, write, shell"));
    run(["chat", "--local", "--allow", "write", "hi"]).expect(2);
}

/// Runs at a terminal and gives these answers, each after the question for it.
fn at_terminal(
    service: &Service,
    folder: &Path,
    args: &[&str],
    answers: &[&str],
) -> (String, String) {
    crate::support::at_terminal(service.command(folder, args), answers)
}

#[test]
fn at_a_terminal_the_person_is_asked() {
    let folder = folder();
    let made = folder.path().join("new.txt");
    let read = json!({"exec": "read_args", "args": {"path": "README.md"}});
    let service = Service::asking(&[read, write_ask(), write_ask(), shell_ask("echo ran > ran")]);

    let (screen, said) =
        at_terminal(&service, folder.path(), &[], &["n", "", "what", "never", "n"]);
    assert!(!made.exists() && !folder.path().join("ran").exists());
    assert_eq!(said.matches("said no").count(), 3, "{said}");
    assert!(screen.contains("create the file `new.txt` with 4 bytes"), "{screen}");
    assert!(screen.contains("  | made"), "what would be written is shown: {screen}");
    assert!(screen.contains("echo ran > ran"), "{screen}");
    assert!(!screen.contains("The model wants to read"), "reading is free: {screen}");

    let (screen, said) = at_terminal(&service, folder.path(), &[], &["y", "n", "yes"]);
    assert!(made.exists() && folder.path().join("ran").exists());
    assert_eq!((said.matches("said no").count(), screen.matches("Allow?").count()), (1, 3));

    let (screen, said) = at_terminal(&service, folder.path(), &[], &["always", "n"]);
    assert_eq!(said.matches("said no").count(), 1, "{said}");
    assert_eq!(screen.matches("Allow?").count(), 2, "the second write is not asked: {screen}");

    let args = ["--allow", "write", "--allow", "shell"];
    let (screen, _) = at_terminal(&service, folder.path(), &args, &[]);
    assert!(!screen.contains("Allow?"), "{screen}");
    service.report();
}

/// Whether a process is there whose command line holds this; dead ones do not count.
#[cfg(target_os = "linux")]
fn runs(mark: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(mark))
}

/// Once: a proper end. Twice: at once. Either way nothing that was started goes on.
#[cfg(target_os = "linux")]
#[test]
fn an_interrupt_leaves_no_command_behind() {
    for interrupts in 1..=2 {
        let folder = folder();
        let mark = format!("97{:07}{interrupts}", std::process::id());
        let command = format!("trap '' TERM INT; sleep {mark} & echo up; wait; sleep {mark}");
        let ask = json!({"exec": "shell_stream_args", "args": {"command": command}});
        let service = Service::asking(&[ask]);
        let mut command = service.command(folder.path(), &["--allow", "shell"]);
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("| up") {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "the command was not started");
        }
        assert!(runs(&mark));
        for _ in 0..interrupts {
            let pid = child.id().to_string();
            std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
        }
        finish(child).expect(130);
        // Looking takes a millisecond or more: half a minute at least, for what takes none.
        let ended = (0..30_000).any(|_| !runs(&mark));
        assert!(ended, "{interrupts}: it goes on");
    }
}
