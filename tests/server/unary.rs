//! The unary calls, and requests that are none.

use agentwire::proto;
use agentwire::server::script::{ErrorStep, Model, Status, Unary, UnaryReply};
use agentwire::server::{Exchange, Options, Output, Playbook, RequestHead, Script};
use prost::Message as _;
use std::time::{Duration, Instant};

struct Answer {
    status: u16,
    content_type: String,
    body: Vec<u8>,
    took: Duration,
}

fn call(playbook: &Playbook, head: &RequestHead, body: &[u8]) -> Option<Answer> {
    #[allow(clippy::disallowed_methods, reason = "virtual time starts here")]
    let start = Instant::now();
    let mut now = start;
    let mut exchange = Exchange::new(playbook.clone(), Default::default());
    exchange.handle_head(head, now);
    for piece in body.chunks(3) {
        exchange.handle_body(piece, now);
    }
    exchange.handle_end(now);
    let mut answer =
        Answer { status: 0, content_type: String::new(), body: Vec::new(), took: Duration::ZERO };
    loop {
        match exchange.poll_output(now) {
            Output::Head { status, headers } => {
                answer.status = status;
                answer.content_type = headers
                    .into_iter()
                    .find(|(name, _)| name == "content-type")
                    .map(|(_, value)| value)
                    .unwrap_or_default();
            }
            Output::Send(bytes) => answer.body.extend_from_slice(&bytes),
            Output::End { .. } => {
                answer.took = now - start;
                assert!(exchange.is_ended());
                return Some(answer);
            }
            Output::Wait(Some(wake)) => now = wake,
            Output::Wait(None) => return None,
            output => panic!("{output:?}"),
        }
    }
}

fn post(name: &str) -> RequestHead {
    RequestHead::post(
        format!("/agent.v1.AgentService/{name}"),
        [("content-type", "application/proto")],
    )
}

#[test]
fn size_and_time_of_a_request_can_be_set() {
    #[allow(clippy::disallowed_methods, reason = "virtual time starts here")]
    let start = Instant::now();
    let options =
        Options { unary_body: 10, unary_within: Duration::from_secs(2), ..Options::default() };
    let told = |body: &[u8], later: Duration| {
        let playbook = Playbook::new(Script::default()).unwrap();
        let mut exchange = Exchange::new(playbook, options.clone());
        exchange.handle_head(&post("GetUsableModels"), start);
        exchange.handle_body(body, start);
        let now = start + later;
        let mut text = String::new();
        loop {
            match exchange.poll_output(now) {
                Output::Wait(until) => return (text, until),
                Output::Send(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
                _ => {}
            }
        }
    };
    let two = Duration::from_secs(2);
    assert_eq!(told(&[0; 10], Duration::ZERO), (String::new(), Some(start + two)));
    let (text, _) = told(&[0; 11], Duration::ZERO);
    assert!(text.contains("larger than 10 bytes"), "{text}");
    let (text, _) = told(&[0; 10], two);
    assert!(text.contains("did not arrive"), "{text}");
}

#[test]
fn plain_answers() {
    let playbook = Playbook::new(Script::default()).unwrap();
    let answer = call(&playbook, &post("GetUsableModels"), &[]).unwrap();
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "application/proto"));
    let models = proto::GetUsableModelsResponse::decode(&*answer.body).unwrap().models;
    assert!(models.iter().any(|model| model.model_id == "composer-2"));
    assert!(models.iter().any(|model| model.model_id.starts_with("gpt-5.4-")));
    assert!(models.iter().any(|model| model.model_id.starts_with("claude-")));

    let answer = call(&playbook, &post("GetDefaultModelForCli"), &[]).unwrap();
    let model = proto::GetDefaultModelForCliResponse::decode(&*answer.body).unwrap().model.unwrap();
    assert_eq!(model.model_id, "composer-2");

    let request = proto::NameAgentRequest {
        user_message: "  Please fix\nthe build of my old project ".into(),
    };
    let answer = call(&playbook, &post("NameAgent"), &request.encode_to_vec()).unwrap();
    let name = proto::NameAgentResponse::decode(&*answer.body).unwrap().name;
    assert_eq!(name, "Please fix the build of my");
}

#[test]
fn scripted_answers() {
    let models = vec![Model { id: "only".into(), ..Model::default() }];
    let with = |usable_models: UnaryReply| {
        let unary = Unary { usable_models, ..Unary::default() };
        let playbook =
            Playbook::new(Script { models: models.clone(), unary, ..Script::default() }).unwrap();
        let first = call(&playbook, &post("GetUsableModels"), &[]);
        let second = call(&playbook, &post("GetUsableModels"), &[]);
        (first, second)
    };
    let error =
        ErrorStep { code: "unavailable".into(), message: "later".into(), ..ErrorStep::default() };
    let (first, second) =
        with(UnaryReply { error: Some(error), times: Some(1), ..UnaryReply::default() });
    let first = first.unwrap();
    assert_eq!((first.status, first.content_type.as_str()), (503, "application/json"));
    assert_eq!(first.body, br#"{"code":"unavailable","message":"later"}"#);
    assert_eq!(second.unwrap().status, 200);

    let status = Status {
        status: 302,
        headers: [("location".into(), "/".into())].into(),
        body: "moved".into(),
    };
    let (first, _) = with(UnaryReply { status: Some(status), ..UnaryReply::default() });
    assert_eq!(first.unwrap().status, 302);

    let (first, _) = with(UnaryReply { enveloped: true, delay_ms: 70, ..UnaryReply::default() });
    let first = first.unwrap();
    assert_eq!(first.took, Duration::from_millis(70));
    let models = proto::GetUsableModelsResponse::decode(&first.body[5..]).unwrap().models;
    assert_eq!((first.body[0], models.len()), (0, 1));

    let (first, _) = with(UnaryReply { silence: true, ..UnaryReply::default() });
    assert!(first.is_none());
}

#[test]
fn requests_that_are_not_served() {
    let playbook = Playbook::new(Script::default()).unwrap();
    let models = post("GetUsableModels");
    let get = RequestHead { method: "GET".into(), ..models.clone() };
    let json = RequestHead::post(models.path.clone(), [("content-type", "application/json")]);
    let bare = RequestHead::post(models.path.clone(), []);
    let zipped = RequestHead::post(
        models.path.clone(),
        [("content-type", "application/proto"), ("content-encoding", "br")],
    );
    let elsewhere = RequestHead::post("/", []);
    let mut run = elsewhere.clone();
    run.path = "/agent.v1.AgentService/Run".into();
    for (head, status) in
        [(get, 405), (json, 415), (bare, 415), (zipped, 501), (elsewhere, 404), (run, 415)]
    {
        let answer = call(&playbook, &head, &[]).unwrap();
        assert_eq!(answer.status, status, "{head:?}");
        assert!(
            serde_json::from_slice::<serde_json::Value>(&answer.body)
                .unwrap()
                .get("code")
                .is_some()
        );
    }
    let broken = call(&playbook, &models, &[0xff; 8]).unwrap();
    assert_eq!(broken.status, 400);
    let large = call(&playbook, &models, &vec![0; (1 << 20) + 1]).unwrap();
    assert_eq!(large.status, 429);
}
