//! `workflow run --mcp`: stages with the tools of a server, and what becomes of the server.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use agentwire::server::Script;
use agentwire::server::serve::Server;
use serde_json::json;

use crate::support::{Done, agentwire, finish};

/// Generous: a loaded machine is slow, a hang is for ever.
const HANG: Duration = Duration::from_secs(120);

/// An MCP server in a few lines of shell. It says when it starts and what is called; the pipe
/// `alive` has a writer as long as it is there. With the pipe `here` it does not answer the call of
/// the number in `hold`, but says that it has it. With the file `stubborn` the end of its input does
/// not end it.
const SERVER: &str = r#"
[ -p alive ] && exec 9<>alive
echo started >> started
tools='{"tools":[{"name":"write","inputSchema":{"type":"object"}},
  {"name":"read","inputSchema":{"type":"object"}}]}'
info='"capabilities":{"tools":{}},"serverInfo":{"name":"t","version":"1"}'
while read -r line; do
  number=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
  case $line in
    *'"initialize"'*) result="{\"protocolVersion\":\"2025-06-18\",$info}" ;;
    *'"tools/list"'*) result=$(printf '%s' "$tools" | tr -d '\n') ;;
    *'"tools/call"'*)
      printf '%s\n' "$line" | sed 's/.*"name":"\([a-z]*\)".*/\1/' >> calls
      if [ -p here ] && [ "$(wc -l < calls)" -eq "$(cat hold)" ]; then echo x > here; continue; fi
      result='{"content":[{"type":"text","text":"done it"}]}' ;;
    *) continue ;;
  esac
  printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$number" "$result"
done
[ -f stubborn ] && exec sleep 1000
"#;

/// A server that starts and then says nothing.
const SILENT: &str = "exec 9<>alive; echo x > here; exec sleep 1000";

struct Place(tempfile::TempDir);

impl Place {
    fn new(pipeline: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("server.sh", SERVER);
        place.write("silent.sh", SILENT);
        place.write("p.toml", &format!("name = \"p\"\n{pipeline}"));
        place
    }

    fn at(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at().join(name), text).unwrap();
    }

    /// The lines of a file that the server writes.
    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.at().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn pipe(&self, name: &str) -> PathBuf {
        let path = self.at().join(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = agentwire(args);
        command.current_dir(self.at());
        command.env("AGENTWIRE_WORKFLOWS", self.at().join("state"));
        command
    }

    /// `workflow` with these arguments and the server as `files`.
    fn workflow(&self, args: &[&str]) -> Command {
        let mut command = self.command(&["workflow"]);
        command.args(args).args(["--local", "--mcp", "files=sh server.sh"]);
        command
    }
}

fn end(mut command: Command) -> Done {
    finish(command.spawn().unwrap())
}

/// Gets a word when everybody who wrote to the pipe is gone.
fn emptied(pipe: PathBuf) -> Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // Opening it waits for the first writer.
        fs::File::open(pipe).unwrap().read_to_end(&mut bytes).unwrap();
        let _nobody = sender.send(());
    });
    receiver
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

fn outputs(done: &Done) -> serde_json::Value {
    done.lines().pop().unwrap()["outputs"].clone()
}

#[test]
fn each_stage_has_the_tools_that_its_lists_leave_it() {
    let (both, read, none) =
        ("2 tools (files_write, files_read)", "1 tool (files_read)", "no tools");
    let cases = [
        ("", both),
        ("tools = [\"files_read\"]", read),
        ("tools = []", none),
        ("mcp_allow = [\"files\"]", both),
        ("mcp_allow = [\"files_read\"]", read),
        ("mcp_allow = []", none),
        ("mcp_deny = [\"files\"]", none),
        ("mcp_deny = [\"files_write\"]", read),
        ("mcp_deny = []", both),
        ("mcp_allow = [\"files\"]\nmcp_deny = [\"files_write\"]", read),
        ("tools = [\"files_write\"]\nmcp_deny = [\"files\"]", none),
    ];
    let stage = |(n, (lists, _)): (usize, &(&str, &str))| {
        format!("[[stage]]\nname = \"s{n}\"\nprompt = \"Use files_write.\"\n{lists}\n")
    };
    let place = Place::new(&cases.iter().enumerate().map(stage).collect::<String>());
    let run = ["run", "p.toml", "--allow-tool", "all", "--json"];
    let outputs = outputs(&end(place.workflow(&run)).expect(0));
    for (n, (lists, offered)) in cases.iter().enumerate() {
        let said = outputs[format!("s{n}")].as_str().unwrap();
        assert!(said.contains(offered), "{lists}: {said}");
        let answered =
            said.contains("files_write answered") || said.contains("files_read answered");
        assert_eq!(answered, *offered != none, "{lists}: {said}");
    }
    let mut calls = place.lines("calls");
    calls.sort();
    assert_eq!(calls, [vec!["read"; 4], vec!["write"; 3]].concat());
    assert_eq!(place.lines("started").len(), 1, "one server for all stages");
}

#[test]
fn what_is_not_allowed_is_refused_where_nobody_can_be_asked() {
    let place = Place::new("[[stage]]\nname = \"s\"\nprompt = \"Use files_write.\"");
    let said = end(place.workflow(&["run", "p.toml"])).expect(0);
    let said = said.stdout();
    assert!(said.contains("nobody can be asked here"), "{said}");
    assert!(said.contains("`--allow-tool files_write`"), "{said}");
    assert!(place.lines("calls").is_empty());
    end(place.workflow(&["run", "p.toml", "--allow-tool", "files_write"])).expect(0);
    assert_eq!(place.lines("calls"), ["write"]);
}

#[test]
fn at_a_terminal_the_person_is_asked_for_tools_and_for_answers() {
    let place = Place::new(
        "[[stage]]\nname = \"a\"\nprompt = \"Use files_write.\"\n\
         [[stage]]\nname = \"b\"\nprompt = \"Use files_write.\"\nafter = [\"a\"]",
    );
    for (answers, calls) in [(&["y", "n"][..], 1), (&["a"], 2)] {
        place.write("calls", "");
        let command = place.workflow(&["run", "p.toml"]);
        let (screen, said) = crate::support::at_terminal(command, answers);
        assert_eq!(place.lines("calls").len(), calls, "{screen}");
        assert!(screen.contains("The model wants to call files_write with"), "{screen}");
        assert_eq!(said.contains("the person was asked and said no"), calls == 1, "{said}");
    }
}

#[test]
fn names_that_nothing_has_are_refused_before_anything_is_sent() {
    for (list, said) in [
        (
            "tools = [\"files_read\", \"files_wite\"]",
            "stage s: `tools` names `files_wite`, and there is no such tool \
             (there are: files_write, files_read)",
        ),
        (
            "tools = [\"zzz\"]",
            "stage s: `tools` names `zzz`, and there is no such tool \
             (there are: files_write, files_read)",
        ),
        (
            "mcp_deny = [\"flies\"]",
            "stage s: `mcp_deny` names `flies`, and there is no such MCP server or tool of one \
             (there are: files)",
        ),
        ("mcp_allow = [\"fil\"]", "(there are: files, files_read, files_write)"),
    ] {
        let place = Place::new(&format!("[[stage]]\nname = \"s\"\nprompt = \"p\"\n{list}"));
        let refused = end(place.workflow(&["run", "p.toml"])).expect(2);
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
        assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
        let list = end(place.command(&["workflow", "list"]));
        assert!(!list.stdout().contains('p'), "a run began: {}", list.stdout());
    }
    let place = Place::new("[[stage]]\nname = \"s\"\nprompt = \"p\"\ntools = [\"files_read\"]");
    let refused = end(place.command(&["workflow", "run", "p.toml", "--local"])).expect(2);
    assert!(refused.stderr.contains("no such tool (there are none); "), "{}", refused.stderr);
    assert!(refused.stderr.contains("--mcp"), "{}", refused.stderr);
}

#[test]
fn a_run_that_is_killed_in_a_tool_does_not_call_it_again() {
    let place = Place::new(
        "[[stage]]\nname = \"one\"\nprompt = \"Use files_write.\"\n\
         [[stage]]\nname = \"two\"\nprompt = \"Use files_write.\"\nafter = [\"one\"]",
    );
    let here = place.pipe("here");
    place.write("hold", "2");
    let args = ["run", "p.toml", "--id", "r", "--allow-tool", "all", "--json"];
    let mut killed = place.workflow(&args).spawn().unwrap();
    emptied(here.clone()).recv_timeout(HANG).unwrap();
    // SIGKILL.
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(place.lines("calls"), ["write", "write"]);
    fs::remove_file(here).unwrap();

    end(place.workflow(&["resume", "r", "--allow-tool", "all"])).expect(0);
    assert_eq!(place.lines("calls"), ["write", "write"], "a call was made again");
    let records = end(place.command(&["workflow", "show", "r", "--json"]));
    let records = records.lines().pop().unwrap()["records"].clone();
    let said =
        records.as_array().unwrap().iter().find(|record| record["key"] == "stage:task:two:1");
    let said = said.unwrap()["value"]["text"].as_str().unwrap().to_owned();
    assert!(said.contains("It may have had its effect"), "{said}");
    assert_eq!(place.lines("started").len(), 2, "one server for each process");
}

/// A model that calls two tools, one after the other, and takes what it finds for them as done.
#[test]
fn a_killed_stage_repeats_neither_what_was_done_nor_what_was_under_way() {
    let script = json!({"rules": [{"steps": ["history", {"if": {
        "results": true,
        "then": [{"text": "{{results}}"}, {"turn_end": {}}],
        "else": [
            {"call": {"tool": "files_write", "args": {}}},
            {"call": {"tool": "files_read", "args": {}}},
            {"turn_end": {}},
        ],
    }}]}]});
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let script = Script::from_json(&script.to_string()).unwrap();
    let server = Server::builder().script(script).cleartext().bind();
    let server = runtime.block_on(server).unwrap();
    let place = Place::new("[[stage]]\nname = \"s\"\nprompt = \"go\"");
    let run = || {
        let mut command = place.command(&["workflow", "run", "p.toml", "--id", "r"]);
        command.args(["--endpoint", &server.url(), "--mcp", "files=sh server.sh"]);
        command.args(["--allow-tool", "all"]).env("AGENTWIRE_TOKEN", "tok-1");
        command
    };
    let here = place.pipe("here");
    place.write("hold", "2");
    let mut killed = run().spawn().unwrap();
    emptied(here.clone()).recv_timeout(HANG).unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    fs::remove_file(here).unwrap();
    let said = end(run()).expect(0);
    assert_eq!(place.lines("calls"), ["write", "read"]);
    assert!(said.stdout().contains("It may have had its effect"), "{}", said.stdout());
}

#[test]
fn servers_end_with_the_command_whatever_ends_it() {
    let stage = "[[stage]]\nname = \"s\"\nprompt = \"Use files_write.\"";
    // One that does not heed the end of its input, after a run.
    let place = Place::new(stage);
    place.write("stubborn", "");
    let gone = emptied(place.pipe("alive"));
    end(place.workflow(&["run", "p.toml", "--allow-tool", "all"])).expect(0);
    gone.recv_timeout(HANG).unwrap();

    // Another one cannot be started.
    let place = Place::new(stage);
    let gone = emptied(place.pipe("alive"));
    let mut command = place.workflow(&["run", "p.toml"]);
    command.args(["--mcp", "false"]);
    let failed = end(command).expect(1);
    assert!(
        failed.stderr.contains("the MCP server `false` does not speak MCP"),
        "{}",
        failed.stderr
    );
    gone.recv_timeout(HANG).unwrap();

    // Ctrl-C in the middle of a call.
    let place = Place::new(stage);
    let (gone, here) = (emptied(place.pipe("alive")), emptied(place.pipe("here")));
    place.write("hold", "1");
    let run = place.workflow(&["run", "p.toml", "--allow-tool", "all"]).spawn().unwrap();
    here.recv_timeout(HANG).unwrap();
    signal(&run, "-INT");
    finish(run).expect(130);
    gone.recv_timeout(HANG).unwrap();

    // Ctrl-C while one starts.
    for args in [&["workflow", "run", "p.toml", "--local"][..], &["agent", "--local", "go"]] {
        let place = Place::new(stage);
        let (gone, here) = (emptied(place.pipe("alive")), emptied(place.pipe("here")));
        let mut command = place.command(args);
        let run = command.args(["--mcp", "sh silent.sh"]).spawn().unwrap();
        here.recv_timeout(HANG).unwrap();
        signal(&run, "-INT");
        finish(run).expect(130);
        gone.recv_timeout(HANG).unwrap();
    }
}
