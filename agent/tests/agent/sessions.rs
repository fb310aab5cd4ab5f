//! Sessions: what is kept, what is cut off, what is closed.

use std::fs;
use std::io::Write as _;

use agentwire::context::Message;
use agentwire::server::Script;
use agentwire_agent::model::{Local, Reply};
use agentwire_agent::session::{SessionError, Store};
use agentwire_agent::{Agent, Session, ToolStatus};
use serde_json::json;

use crate::support::{add, agent};

fn chat() -> Agent {
    let replies = (1..5).map(|n| {
        [
            Reply::new().thinking("hm").call(format!("c{n}"), "add", json!({"a": n, "b": 1})),
            Reply::new().text(format!("answer {n}")),
        ]
    });
    agent(replies.flatten()).tool(add()).build().expect("an agent")
}

#[tokio::test]
async fn a_session_goes_on_in_another_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::new(folder.path().join("sessions"));
    // The protocol's own state comes back too: the second turn knows of the first.
    let script = r#"{"rules": [{"steps": ["history", {"text": "turn {{turn}}"},
        {"checkpoint": {}}, {"turn_end": {}}]}]}"#;
    let model = Local::new(Script::from_json(script).expect("a script")).expect("plays");
    let agent = Agent::builder(model).model("composer-2").build().expect("an agent");
    let mut ids = Vec::new();
    for turn in 1..=3 {
        let session = store.open("work").expect("it opens");
        assert_eq!(session.messages().len(), 2 * (turn - 1));
        assert!(!session.is_unfinished());
        let ended = agent.prompt("go on").session(session).start().finish().await.expect("an end");
        assert_eq!(ended.outcome.text, format!("turn {turn}"));
        ids.push(ended.session.reference().clone());
    }
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert!(folder.path().join("sessions/work.state").exists());
}

#[tokio::test]
async fn a_torn_last_line_is_cut_off_and_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s.jsonl");
    let session = Session::open(&path).expect("it opens");
    let ended = chat().prompt("go").session(session).start().finish().await.expect("an end");
    let messages = ended.session.messages();
    drop(ended);
    let whole = fs::read(&path).expect("the log");
    // Every length: the last good state, or what is missing is closed.
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).expect("written");
        let session = Session::open(&path).expect("it opens");
        let at_a_line = length == 0 || whole[length - 1] == b'\n';
        assert_eq!(session.torn().is_some(), !at_a_line, "{length}");
        let read = session.messages();
        let results = read.iter().filter(|m| matches!(***m, Message::ToolResult(_))).count();
        let answers = read.iter().filter(|m| matches!(***m, Message::Assistant { .. })).count();
        assert!(read.len() <= messages.len() && results >= answers.saturating_sub(1), "{length}");
        drop(session);
        // What was cut off stays off.
        assert!(Session::open(&path).expect("again").torn().is_none());
    }
}

#[test]
fn a_damaged_line_in_the_middle_is_an_error_that_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s.jsonl");
    drop(Session::open(&path).expect("it opens"));
    let mut file = fs::OpenOptions::new().append(true).open(&path).expect("the log");
    file.write_all(b"not json\n{\"v\":1,\"at\":0,\"type\":\"tool_started\",\"id\":\"x\"}\n")
        .expect("written");
    let before = fs::read(&path).expect("the log");
    let error = Session::open(&path).expect_err("damaged");
    assert!(matches!(error, SessionError::Damaged { line: 2, records: 0, .. }), "{error}");
    assert_eq!(fs::read(&path).expect("the log"), before);
    fs::write(&path, "{\"v\":2,\"type\":\"session\"}\n{}\n").expect("written");
    let error = Session::open(&path).expect_err("newer");
    assert!(matches!(error, SessionError::Version { version: 2, .. }), "{error}");
}

#[tokio::test]
async fn what_stands_before_the_damage_is_listed_and_forked() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::new(folder.path());
    let session = store.open("bad").expect("it opens");
    drop(chat().prompt("go").session(session).start().finish().await.expect("an end"));
    let path = folder.path().join("bad.jsonl");
    let whole = fs::read_to_string(&path).expect("the log");
    // The header and six records: the fifth line is no record, nor one of this version.
    for (line, rest) in [("{\"v\":1,\"at\"", "is damaged"), ("{\"v\":2}", "a newer version")] {
        let mut lines: Vec<_> = whole.lines().collect();
        lines[4] = line;
        fs::write(&path, lines.join("\n") + "\n").expect("written");
        let list = store.list().expect("a list");
        assert_eq!((list[0].name.as_str(), list[0].records), ("bad", 3));
        assert!(list[0].updated >= list[0].created && list[0].created > 0);
        assert_eq!((list[0].unfinished, list[0].task.as_str()), (true, "go"));
        let damage = list[0].damage.clone().expect("damage");
        assert!(damage.contains(rest), "{damage}");
        for records in [None, Some(4)] {
            let error = store.fork("bad", "late", records).expect_err("not to be read");
            assert_eq!(error.to_string(), damage);
        }
        let readable = store.readable("bad").expect("some of it");
        assert_eq!((readable.entries.len(), readable.torn), (3, None));
        assert_eq!(readable.damage.expect("damage").to_string(), damage);
        // What the error says to do can be done.
        store.fork("bad", "good", Some(3)).expect("forked");
        assert_eq!(store.open("good").expect("it opens").messages().len(), 3);
        store.remove("good").expect("removed");
    }
    // Not even the header: listed, so that it can be removed.
    fs::write(&path, "x\n".to_owned() + &whole).expect("written");
    let list = store.list().expect("a list");
    assert_eq!((list[0].id.as_str(), list[0].records), ("", 0));
    let damage = list[0].damage.as_deref().unwrap_or_default();
    assert!(damage.ends_with("remove the session and begin another"), "{damage}");
    store.remove("bad").expect("removed");
    assert!(store.list().expect("a list").is_empty());
}

#[test]
fn a_log_that_is_too_large_can_be_forked_before_that() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::new(folder.path());
    drop(store.open("big").expect("it opens"));
    let path = folder.path().join("big.jsonl");
    let mut file = fs::OpenOptions::new().append(true).open(&path).expect("the log");
    file.write_all(b"{\"v\":1,\"at\":0,\"type\":\"tool_started\",\"id\":\"x\"}\n")
        .expect("written");
    // A hole: nothing of it is on the disk.
    file.set_len((256 << 20) + 1).expect("longer");
    let error = store.open("big").expect_err("too large");
    assert!(matches!(error, SessionError::TooLarge { records: 1, .. }), "{error}");
    let list = store.list().expect("a list");
    assert_eq!((list[0].records, list[0].damage.clone()), (1, Some(error.to_string())));
    store.fork("big", "small", Some(1)).expect("forked");
    assert_eq!(store.read("small").expect("it reads").1.len(), 1);
}

#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::new(folder.path());
    let open = store.open("s").expect("it opens");
    assert!(matches!(store.open("s"), Err(SessionError::InUse(_))));
    assert!(matches!(store.remove("s"), Err(SessionError::InUse(_))));
    drop(open);
    assert!(store.open("s").is_ok());
    for bad in ["", ".", "..", "a/b", "a b", &"x".repeat(101)] {
        assert!(matches!(store.open(bad), Err(SessionError::Name(_))), "{bad}");
    }
}

#[tokio::test]
async fn a_fork_begins_anywhere_and_closes_what_is_open_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::new(folder.path());
    let session = store.open("a").expect("it opens");
    drop(chat().prompt("go").session(session).start().finish().await.expect("an end"));
    let (header, entries, _) = store.read("a").expect("it reads");
    // user, assistant, tool started, result, assistant, end.
    assert_eq!(entries.len(), 6);
    for records in 0..=entries.len() {
        let name = format!("f{records}");
        store.fork("a", &name, Some(records)).expect("forked");
        let fork = store.open(&name).expect("it opens");
        assert_ne!(fork.reference().id, header.id);
        assert_ne!(
            fork.reference().conversation_id,
            agentwire::conversation::id::of_session(&header.id).expect("one")
        );
        assert_eq!(fork.is_unfinished(), (1..6).contains(&records));
        let messages = fork.messages();
        let expected = [0, 1, 3, 3, 3, 4, 4][records];
        assert_eq!(messages.len(), expected, "after {records}");
    }
    let (fork, ..) = store.read("f3").expect("it reads");
    let parent = fork.parent.expect("a parent");
    assert_eq!((parent.id, parent.records), (header.id, 3));
    // The call was started when the fork was made: nobody knows what became of it.
    let (_, entries, _) = store.read("f3").expect("it reads");
    let status = entries.iter().find_map(|entry| match &entry.record {
        agentwire_agent::record::Record::ToolResult { status, .. } => Some(*status),
        _ => None,
    });
    assert_eq!(status, Some(ToolStatus::Interrupted));
    assert!(matches!(store.fork("a", "f0", None), Err(SessionError::Exists(_))));
    assert!(matches!(store.fork("a", "g", Some(7)), Err(SessionError::NoRecord(7))));
    assert!(matches!(store.fork("none", "g", None), Err(SessionError::Missing(_))));
}

#[tokio::test]
async fn list_export_and_remove() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::new(folder.path());
    assert!(Store::new(folder.path().join("none")).list().expect("empty").is_empty());
    let session = store.open("a").expect("it opens");
    drop(chat().prompt("add them\nplease").session(session).start().finish().await);
    fs::write(folder.path().join("other.txt"), "x").expect("written");
    let list = store.list().expect("a list");
    assert_eq!(list.len(), 1);
    assert_eq!((list[0].name.as_str(), list[0].task.as_str()), ("a", "add them"));
    assert_eq!((list[0].records, list[0].unfinished), (6, false));
    let text = store.export("a").expect("Markdown");
    let expected = "# a\n\n## User\n\nadd them\nplease\n\n## Assistant (m)\n\n> hm\n\n\
        **Call of `add`**\n\n```json\n{\n  \"a\": 1,\n  \"b\": 1\n}\n```\n\n\
        **Result of `add`**\n\n```\n2\n```\n\n## Assistant (m)\n\nanswer 1\n";
    assert_eq!(text, expected);
    store.remove("a").expect("removed");
    assert!(store.list().expect("empty").is_empty());
    assert!(matches!(store.export("a"), Err(SessionError::Missing(_))));
}
