//! Scripts played to a client that answers, under a virtual clock.

use std::time::Duration;

use agentwire::connect::Code;
use agentwire::proto::{
    self, agent_client_message as ask, agent_server_message, conversation_action::Action,
    kv_server_message,
};
use agentwire::server::script::{Rule, Say, Step, When};
use agentwire::server::session::Options as SessionOptions;
use agentwire::server::{Exchange, Options, Output, Playbook, Script};
use serde_json::json;

use crate::client::{Client, run, run_action, tool};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn of(json: serde_json::Value) -> Client {
    Client::new(Script::from_json(&json!({"rules": [{"steps": json}]}).to_string()).unwrap())
}

#[test]
fn how_much_of_a_history_is_fetched_can_be_set() {
    for (blobs, bytes, asked, told) in [
        (4_096, 64 << 20, 3, "3 earlier turns"),
        (2, 64 << 20, 2, "2 earlier turns"),
        (3, 0, 3, "3 of its blobs missing"),
    ] {
        let mut client = Client::new(Script::assistant());
        let session =
            SessionOptions { history_blobs: blobs, history_bytes: bytes, ..Default::default() };
        let playbook = Playbook::new(Script::assistant()).unwrap();
        client.exchange = Exchange::new(playbook, Options { session, ..Options::default() });
        let turns = (0..3).map(|n| {
            client
                .blob(&format!(r#"{{"role":"user","content":[{{"type":"text","text":"q{n}"}}]}}"#))
        });
        let root_prompt_messages_json = turns.collect();
        client.open();
        client.send(run(
            "hi",
            proto::ConversationStateStructure { root_prompt_messages_json, ..Default::default() },
        ));
        client.play();
        let is_question = |message: &agent_server_message::Message| match message {
            agent_server_message::Message::KvServerMessage(kv) => {
                matches!(kv.message, Some(kv_server_message::Message::GetBlobArgs(_)))
            }
            _ => false,
        };
        let questions = client.seen.messages.iter().filter(|message| is_question(message));
        assert_eq!(questions.count(), asked);
        let text = client.seen.text();
        assert!(text.contains(told), "{told:?} is not in {text:?}");
    }
}

#[test]
fn the_assistant_says_what_it_received() {
    let mut client = Client::new(Script::assistant());
    client.tools = vec![tool("read"), tool("ls")];
    client.tool = |args| match args.tool_name.as_str() {
        "ls" => "src/\nREADME.md".into(),
        _ => "# Hello".into(),
    };
    let system = client.blob(r#"{"role":"system","content":"be kind"}"#);
    let user = client.blob(r#"{"role":"user","content":[{"type":"text","text":"who are you?"}]}"#);
    let answer =
        client.blob(r#"{"role":"assistant","content":[{"type":"text","text":"a script"}]}"#);
    let state = proto::ConversationStateStructure {
        root_prompt_messages_json: vec![system, user, answer],
        ..Default::default()
    };
    client.open();
    client.send(run("what is in the folder?", state.clone()));
    client.play();

    let seen = &client.seen;
    assert_eq!(seen.status, Some(200));
    assert_eq!(seen.last, Some(Output::End { trailers: vec![] }));
    assert_eq!(seen.end, Some(json!({})));
    let text = seen.text();
    for part in [
        "You asked: what is in the folder?",
        "I am composer-2",
        "turn 2",
        "1 earlier turn (the last one asked: \"who are you?\")",
        "2 tools (read, ls)",
        "no images",
        "ls answered: src/\nREADME.md",
        "read answered: # Hello",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    assert!(seen.thinking().contains("turn 2"));
    let outline = seen.outline();
    assert_eq!(outline[..4], ["context", "get_blob", "thinking", "thought"]);
    assert!(outline.ends_with(&["set_blob", "checkpoint", "turn_ended"]), "{outline:?}");
    assert!(client.exchange.violations().is_empty());
    assert_eq!(client.exchange.open_questions(), 0);

    // The checkpoint keeps what was there, adds this turn, and its blobs were handed over.
    let checkpoint = seen.checkpoint().unwrap();
    assert_eq!(checkpoint.root_prompt_messages_json[..3], state.root_prompt_messages_json);
    assert!(checkpoint.root_prompt_messages_json.len() > 6);
    assert_eq!(checkpoint.turns.len(), 1);
    for id in checkpoint.root_prompt_messages_json.iter().chain(&checkpoint.turns) {
        assert!(client.blobs.contains_key(id.as_ref()));
    }
    let end = seen.turn_ended().unwrap();
    assert!(end.input_tokens.unwrap() > 0 && end.output_tokens.unwrap() > 0);
}

#[test]
fn a_conversation_goes_on_from_its_checkpoint() {
    let playbook = Playbook::new(Script::assistant()).unwrap();
    let (mut state, mut blobs) = (proto::ConversationStateStructure::default(), Default::default());
    for turn in 1..=3 {
        let mut client = Client::with(playbook.clone());
        client.blobs = blobs;
        client.open();
        client.send(run(&format!("question {turn}"), state));
        client.play();
        let text = client.seen.text();
        assert!(text.contains(&format!("This is turn {turn} ")), "{text}");
        if turn > 1 {
            assert!(
                text.contains(&format!("the last one asked: \"question {}\"", turn - 1)),
                "{text}"
            );
        }
        state = client.seen.checkpoint().unwrap().clone();
        blobs = client.blobs;
    }
    assert_eq!(state.turns.len(), 3);
}

#[test]
fn a_resume_answers_the_last_question() {
    let mut client = Client::new(Script::assistant());
    let user = client.blob(r#"{"role":"user","content":[{"type":"text","text":"go on"}]}"#);
    let state = proto::ConversationStateStructure {
        root_prompt_messages_json: vec![user],
        ..Default::default()
    };
    client.open();
    client.send(run_action(Action::ResumeAction(Default::default()), state));
    client.play();
    assert!(client.seen.text().contains("You asked: go on"), "{}", client.seen.text());
    assert_eq!(client.seen.checkpoint().unwrap().turns.len(), 1);
}

#[test]
fn deltas_have_the_size_and_the_pace_of_the_script() {
    let say = Say {
        text: "abcdefgh\u{1F980}i".into(),
        delta: Some(4),
        pace_ms: Some(20),
        tokens: Some(false),
    };
    let mut client = Client::new(Script::of([Step::Text(say)]));
    client.ask("hi");
    let texts: Vec<_> = client
        .seen
        .updates()
        .map(|update| match update {
            proto::interaction_update::Message::TextDelta(delta) => delta.text.as_str(),
            _ => panic!("text only"),
        })
        .collect();
    assert_eq!(texts, ["abcd", "efgh", "\u{1F980}i"]);
    assert_eq!(client.seen.times, [ms(0), ms(20), ms(40)]);
}

#[test]
fn packed_deltas_share_frames() {
    let script = Script { pack: 4_096, ..Script::of([Step::text("x".repeat(1_200))]) };
    let mut client = Client::new(script);
    client.open();
    client.send(run("hi", Default::default()));
    let mut sends = 0;
    while !client.exchange.is_ended() || sends == 0 {
        if let Output::Send(bytes) = client.exchange.poll_output(client.now) {
            assert!(bytes.len() <= 4_096);
            sends += 1;
        }
    }
    assert!(sends < 4, "{sends}");
}

#[test]
fn several_calls_run_at_once_and_their_results_are_told() {
    let mut client = of(json!([
        {"calls": [{"tool": "a", "args": {"x": "{{prompt}}"}}, {"tool": "b", "id": "my-id", "provider": "p"}]},
        {"text": "{{results}}"},
        {"turn_end": {}}]));
    client.answers = false;
    client.open();
    client.send(run("hi", Default::default()));
    client.play_until(ms(10));
    let calls: Vec<_> = client
        .seen
        .messages
        .iter()
        .filter_map(|message| match message {
            agent_server_message::Message::ExecServerMessage(exec) => Some(exec.clone()),
            _ => None,
        })
        .collect();
    let ids: Vec<_> = calls
        .iter()
        .map(|exec| match exec.message.as_ref().unwrap() {
            proto::exec_server_message::Message::McpArgs(args) => args.tool_call_id.as_str(),
            _ => panic!("calls only"),
        })
        .collect();
    assert_eq!(ids, ["call_1_1", "my-id"]);
    // Answered in the other order; the text waits for both.
    for exec in calls.iter().rev() {
        assert_eq!(client.seen.text(), "");
        let result = crate::client::mcp_text(format!("r{}", exec.id));
        client.result(
            exec.id,
            &exec.exec_id,
            proto::exec_client_message::Message::McpResult(Box::new(result)),
        );
        client.close(exec.id);
        client.play_until(ms(20));
    }
    assert_eq!(
        client.seen.text(),
        format!("a answered: r{}\nb answered: r{}", calls[0].id, calls[1].id)
    );
    assert!(client.exchange.violations().is_empty());
}

#[test]
fn questions_of_every_channel_are_asked_and_waited_for() {
    let mut client = of(json!([
        {"ask": {"exec": "shell_args", "args": {"command": "ls"}}},
        {"ask": {"exec_field": 99, "hex": "0a00", "id": 0, "exec_id": ""}},
        {"ask": {"query": "web_search_request_query"}},
        {"ask": {"query_field": 42}},
        {"ask": {"exec_field": 98, "wait": false}},
        "answers",
        {"get_blob": "00ff"},
        {"set_blob": "hello"},
        {"text": "done"}]));
    client.ask("hi");
    assert_eq!(client.seen.text(), "done");
    assert_eq!(
        client.seen.outline(),
        ["exec", "unknown exec", "query", "unknown exec", "get_blob", "set_blob", "text", "tokens"]
    );
    assert!(client.exchange.violations().is_empty(), "{:?}", client.exchange.violations());
    assert!(client.blobs.values().any(|blob| blob.as_ref() == b"hello"));
}

#[test]
fn what_was_answered_can_be_said() {
    let mut client = of(json!([
        {"ask": {"exec": "shell_args"}}, {"text": "1: {{answer}}\n"},
        {"ask": {"exec": "ls_args"}}, {"text": "2: {{answer}}\n"},
        {"ask": {"query": "web_search_request_query"}}, {"text": "3: {{answer}}\n"},
        "use_workspace", {"text": "{{results}}"}]));
    client.ask("hi");
    let lines: Vec<_> = client.seen.text().lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("1: ") && lines[0].len() > 4, "a refusal has a reason: {lines:?}");
    assert_eq!(lines[1], "2: not known here", "a throw is an answer too");
    assert_eq!(lines[2], "3: {\"web_search_request_response\":{}}");
    // A list that fails is not followed by a file.
    assert_eq!(lines[3..], ["ls failed: not known here"]);
    assert!(client.exchange.violations().is_empty(), "{:?}", client.exchange.violations());
}

#[test]
fn an_exec_is_aborted_in_time_and_no_longer_waited_for() {
    let mut client = of(json!([
        {"ask": {"exec": "shell_stream_args", "abort_after_ms": 500}}, {"text": "on"}]));
    client.answers = false;
    client.ask("hi");
    assert_eq!(client.seen.outline(), ["exec", "abort", "text", "tokens"]);
    assert_eq!(client.seen.times[1], ms(500));
    assert_eq!(client.exchange.open_questions(), 0);
}

#[test]
fn a_question_without_an_answer_ends_the_run_after_heartbeats() {
    let mut client = of(json!(["context", {"text": "never"}]));
    client.answers = false;
    client.ask("hi");
    assert_eq!(client.seen.error_code(), Some("deadline_exceeded"));
    assert_eq!(client.seen.outline(), ["context", "heartbeat"]);
    assert_eq!(client.seen.times[1..3], [ms(5_000), ms(10_000)]);
    assert_eq!(client.exchange.open_questions(), 1);
}

#[test]
fn errors_of_every_code_with_details_after_text() {
    for code in Code::ALL {
        let mut client = of(json!([
            {"text": "so far"},
            {"error": {"code": code.as_str(), "message": "m", "details": [{"type": "t", "value": "AA"}]}}]));
        client.ask("hi");
        assert_eq!(client.seen.text(), "so far");
        let expected = json!({"error": {"code": code.as_str(), "message": "m", "details": [{"type": "t", "value": "AA"}]}});
        assert_eq!(client.seen.end, Some(expected));
    }
}

#[test]
fn broken_streams_are_broken_as_asked() {
    let table: [(serde_json::Value, Option<Output>); 6] = [
        (json!(["close"]), Some(Output::End { trailers: vec![] })),
        (json!([{"reset": 8}]), Some(Output::Reset(8))),
        (json!([{"reset": {"code": 11}}]), Some(Output::Reset(11))),
        (json!(["cut"]), Some(Output::Cut)),
        (json!(["silence"]), None),
        (json!([{"heartbeats": {"every_ms": 60_000}}]), None),
    ];
    for (steps, last) in table {
        let mut client = of(steps.clone());
        client.ask("hi");
        assert_eq!(client.seen.last, last, "{steps}");
        assert_eq!(client.seen.end, None, "{steps}");
    }
}

#[test]
fn raw_bytes_statuses_and_heads() {
    let mut client =
        of(json!([{"bytes": {"hex": "00 00"}}, {"bytes": {"text": "hi", "flags": 128}}, "close"]));
    client.ask("hi");
    assert_eq!(client.seen.body, b"\x00\x00\x80\x00\x00\x00\x02hi");

    let mut client = of(
        json!([{"status": {"status": 429, "headers": {"retry-after": "2"}, "body": {"code": "x"}}}]),
    );
    client.ask("hi");
    assert_eq!(client.seen.status, Some(429));
    assert!(client.seen.headers.contains(&("retry-after".into(), "2".into())));
    assert_eq!(client.seen.body, br#"{"code":"x"}"#);

    let mut client = of(json!([{"head": {"headers": {"content-type": ""}}}, "close"]));
    client.ask("hi");
    assert_eq!((client.seen.status, client.seen.headers.len()), (Some(200), 0));

    let mut client = of(json!([{"goaway": 0}, {"text": "still here"}]));
    client.ask("hi");
    assert_eq!((client.seen.goaway, client.seen.text().as_str()), (Some(0), "still here"));
}

#[test]
fn the_head_can_be_held_back() {
    let steps = vec![Step::WaitMs(1_000), Step::text("late")];
    let rule = Rule { hold_head: true, steps, ..Rule::default() };
    let mut client =
        Client::new(Script { rules: vec![rule], heartbeat_ms: 0, ..Script::default() });
    client.open();
    client.send(run("hi", Default::default()));
    client.play_until(ms(999));
    assert_eq!(client.seen.status, None);
    client.play_until(ms(1_001));
    assert_eq!(client.seen.status, Some(200));
}

#[test]
fn rules_are_chosen_by_what_is_asked_and_used_up() {
    let rule = |prompt: &str, times: Option<u32>, text: &str| Rule {
        when: When { prompt: Some(prompt.into()), ..When::default() },
        times,
        steps: vec![Step::text(text)],
        ..Rule::default()
    };
    let rules = vec![
        rule("flaky", Some(1), "first"),
        rule("flaky", None, "again"),
        rule("else", None, "else"),
    ];
    let playbook = Playbook::new(Script { rules, ..Script::default() }).unwrap();
    for (prompt, text) in [
        ("a flaky one", "first"),
        ("something else", "else"),
        ("Flaky", "again"),
        ("flaky", "again"),
    ] {
        let mut client = Client::with(playbook.clone());
        assert_eq!(client.ask(prompt).text(), text, "{prompt}");
    }
    let mut client = Client::with(playbook);
    assert_eq!(client.ask("what?").error_code(), Some("failed_precondition"));
}

#[test]
fn a_message_into_the_running_turn_is_acknowledged() {
    let wait = json!([{"wait_for": "action"}, {"text": "heard"}]);
    let message = proto::UserMessage { text: "and this".into(), ..Default::default() };
    let action = proto::UserMessageAction { user_message: Some(message), ..Default::default() };
    let action = Some(Action::UserMessageAction(Box::new(action)));
    let mut client = of(wait.clone());
    client.open();
    client.send(run("hi", Default::default()));
    client.play_until(ms(10));
    client.send(ask::Message::ConversationAction(Box::new(proto::ConversationAction { action })));
    client.play();
    assert_eq!(client.seen.outline(), ["appended", "text", "tokens"]);

    let mut silent = of(wait);
    assert_eq!(silent.ask("hi").error_code(), Some("deadline_exceeded"));
    let mut patient =
        of(json!([{"wait_for": {"event": "heartbeat", "timeout_ms": 50}}, {"text": "on"}]));
    assert_eq!(patient.ask("hi").text(), "on");
}

#[test]
fn a_cancel_ends_the_run() {
    let mut client = of(json!([{"wait_ms": 60_000}, {"text": "never"}]));
    client.open();
    client.send(run("hi", Default::default()));
    client.play_until(ms(10));
    let action =
        proto::ConversationAction { action: Some(Action::CancelAction(Default::default())) };
    client.send(ask::Message::ConversationAction(Box::new(action)));
    client.play();
    assert_eq!(client.seen.error_code(), Some("canceled"));
    assert_eq!(client.seen.text(), "");
}

#[test]
fn a_reset_silences_the_player() {
    let mut client = Client::new(Script::assistant());
    client.open();
    client.send(run("hi", Default::default()));
    client.exchange.handle_reset(Some(8), client.now);
    client.play();
    assert!(client.seen.body.is_empty());
    assert!(client.exchange.is_ended());
}

#[test]
fn a_client_that_half_closes_still_gets_its_answer_but_cannot_be_asked() {
    for (steps, code, text) in [
        (json!([{"wait_ms": 5}, {"text": "here"}]), None, "here"),
        (json!(["context", {"text": "here"}]), Some("failed_precondition"), ""),
    ] {
        let mut client = of(steps);
        client.answers = false;
        client.open();
        client.send(run("hi", Default::default()));
        client.exchange.handle_end(client.now);
        client.play();
        assert_eq!((client.seen.error_code(), client.seen.text().as_str()), (code, text));
    }
}

#[test]
fn repeats_and_choices() {
    let mut client = of(json!([
        {"repeat": {"times": 3, "steps": [{"text": "x"}]}},
        {"if": {"tools": true, "then": [{"text": "tools"}], "else": [{"text": "none"}]}}]));
    assert_eq!(client.ask("hi").text(), "xxxnone");
    let mut client = of(json!([{"repeat": {"steps": [{"repeat": {"times": 2, "steps": []}}]}}]));
    assert_eq!(client.ask("hi").error_code(), Some("internal"));
}

#[test]
fn gzip_when_the_client_takes_it() {
    let text = "long ".repeat(1_000);
    let say = Say { delta: Some(10_000), ..Say { text: text.clone(), ..Say::default() } };
    let mut client = Client::new(Script { gzip: true, ..Script::of([Step::Text(say)]) });
    client.ask("hi");
    assert!(client.seen.headers.contains(&("connect-content-encoding".into(), "gzip".into())));
    assert_eq!(client.seen.body[0], 1);
    assert!(client.seen.body.len() < text.len() / 4);
}
