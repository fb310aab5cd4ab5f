//! The sign-in that the server plays: tokens and their ends, under a virtual clock.

use std::time::{Duration, Instant};

use agentwire::auth::{Claims, Pkce};
use agentwire::secret::Secret;
use agentwire::server::{Exchange, Options, Output, Playbook, RequestHead, Script, Seed};
use serde_json::Value;

const MODELS: &str = "/agent.v1.AgentService/GetUsableModels";

/// A server that begins at second 1 000 of the Unix clock.
struct Desk {
    playbook: Playbook,
    seed: Seed,
    start: Instant,
}

impl Desk {
    fn new(rules: &str) -> Self {
        let script = Script::from_json(&format!("{{\"sign_in\": {rules}}}")).unwrap();
        #[allow(clippy::disallowed_methods, reason = "virtual time starts here")]
        let start = Instant::now();
        let seed = Seed { clock: (start, 1_000_000), entropy: Secret::new([7; 32]) };
        Self { playbook: Playbook::new(script).unwrap(), seed, start }
    }

    /// Status and body of a call, so many seconds after the start.
    fn call(&self, head: &RequestHead, second: u64) -> (u16, Vec<u8>) {
        let now = self.start + Duration::from_secs(second);
        let options = Options { sign_in: Some(self.seed.clone()), ..Options::default() };
        let mut exchange = Exchange::new(self.playbook.clone(), options);
        exchange.handle_head(head, now);
        exchange.handle_end(now);
        let (mut status, mut body) = (0, Vec::new());
        loop {
            match exchange.poll_output(now) {
                Output::Head { status: said, .. } => status = said,
                Output::Send(bytes) => body.extend_from_slice(&bytes),
                Output::Wait(_) | Output::End { .. } => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(exchange.is_ended());
        (status, body)
    }

    fn get(&self, path: &str, query: &str) -> (u16, Vec<u8>) {
        let head = RequestHead { method: "GET".into(), query: query.into(), ..post(path, "") };
        self.call(&head, 0)
    }

    fn refresh(&self, token: &str) -> (u16, Vec<u8>) {
        self.call(&post("/auth/refresh", token), 0)
    }

    /// Whether a call with this token is served at that second.
    fn serves(&self, token: &str, second: u64) -> bool {
        match self.call(&post(MODELS, token), second).0 {
            200 => true,
            401 => false,
            other => panic!("{other}"),
        }
    }
}

fn post(path: &str, token: &str) -> RequestHead {
    let bearer = format!("Bearer {token}");
    let headers = [("content-type", "application/proto"), ("authorization", bearer.as_str())];
    RequestHead::post(path, headers)
}

fn pair((status, body): (u16, Vec<u8>)) -> [String; 2] {
    assert_eq!(status, 200);
    let body: Value = serde_json::from_slice(&body).unwrap();
    ["accessToken", "refreshToken"].map(|name| body[name].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_token_is_good_until_its_end_and_nobody_elses_is() {
    let desk = Desk::new(r#"{"require": true, "lifetime_s": 60, "subject": "ada"}"#);
    let [access, refresh] = pair(desk.get("/auth/poll", "uuid=u&verifier=v"));
    let claims = Claims::of(&access);
    assert_eq!((claims.subject.as_deref(), claims.expires_s), (Some("ada"), Some(1_060.0)));
    assert!(desk.serves(&access, 0) && desk.serves(&access, 59) && !desk.serves(&access, 60));
    for wrong in ["", "x", &refresh, &access[..access.len() - 1], &format!("{access}x")] {
        assert!(!desk.serves(wrong, 0), "{wrong}");
    }
    let other = Desk {
        seed: Seed { entropy: Secret::new([8; 32]), ..desk.seed.clone() },
        ..Desk::new("{}")
    };
    assert_ne!(pair(other.get("/auth/poll", "uuid=u&verifier=v"))[0], access);
    // Without the rule nobody is asked.
    assert!(other.serves("", 0));
}

#[test]
fn how_many_are_remembered_can_be_set() {
    for (remembered, first) in [(1_024, true), (2, true), (1, false), (0, false)] {
        let rules = format!("{{\"require\": true, \"remembered\": {remembered}}}");
        let desk = Desk::new(&rules);
        let tokens =
            ["a", "b"].map(|id| pair(desk.get("/auth/poll", &format!("uuid={id}&verifier=v"))));
        assert_eq!(desk.serves(&tokens[0][0], 0), first, "{remembered}");
        assert!(desk.serves(&tokens[1][0], 0), "{remembered}: the last one always");
        assert_eq!(desk.refresh(&tokens[0][1]).0, if first { 200 } else { 401 }, "{remembered}");
    }
}

#[test]
fn a_refresh_token_is_used_up_unless_the_script_keeps_it() {
    for rotate in [true, false] {
        let desk = Desk::new(&format!("{{\"require\": true, \"uses\": 2, \"rotate\": {rotate}}}"));
        let [access, refresh] = pair(desk.get("/auth/poll", "uuid=u&verifier=v"));
        let [second, next] = pair(desk.refresh(&refresh));
        assert_ne!(access, second);
        assert_eq!(next.is_empty(), !rotate);
        assert_eq!(desk.refresh(&refresh).0, if rotate { 401 } else { 200 });
        assert_eq!(desk.refresh("made-up").0, 401);
        let served: Vec<_> = (0..3).map(|_| desk.serves(&second, 0)).collect();
        assert_eq!(served, [true, true, false], "revoked after two calls");
    }
}

#[test]
fn a_page_that_was_opened_needs_the_verifier_of_its_challenge() {
    let desk = Desk::new(r#"{"page": true, "pending": 1}"#);
    let challenge = Pkce::challenge_of("the verifier");
    let query = "uuid=u&verifier=the+verifier";
    assert_eq!(desk.get("/auth/poll", query).0, 404);
    assert_eq!(desk.get("/auth/poll", query).0, 404, "nobody opened the page");
    let (status, page) =
        desk.get("/loginDeepControl", &format!("challenge={challenge}&uuid=u&mode=login"));
    assert!(status == 200 && !String::from_utf8(page).unwrap().contains(&challenge));
    assert_eq!(desk.get("/auth/poll", "uuid=u&verifier=another").0, 404);
    assert_eq!(desk.get("/auth/poll", query).0, 200);
    for bad in ["", "uuid=u", "verifier=v", "uuid=&verifier="] {
        assert_eq!(desk.get("/auth/poll", bad).0, 400, "{bad}");
    }
    assert_eq!(desk.get("/auth/refresh", "").0, 405);
}

#[test]
fn without_a_seed_there_is_no_sign_in() {
    let desk = Desk::new(r#"{"require": true}"#);
    let mut exchange = Exchange::new(desk.playbook.clone(), Options::default());
    exchange.handle_head(&post("/auth/refresh", "x"), desk.start);
    assert!(matches!(exchange.poll_output(desk.start), Output::Head { status: 401, .. }));
}

#[test]
fn scripts_that_cannot_be_played_are_refused() {
    for bad in [
        r#"{"poll": {"bytes": {"hex": "zz"}}}"#,
        r#"{"refresh": {"status": {"status": 7}}}"#,
        r#"{"later": 1}"#,
    ] {
        assert!(Script::from_json(&format!("{{\"sign_in\": {bad}}}")).is_err(), "{bad}");
    }
}
