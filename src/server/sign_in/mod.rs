//! The sign-in of the local server: one call of it as a pure machine, over the desk that all share.

mod desk;
mod query;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use super::player::Playbook;
use super::script::JsonReply;
use super::session::{Output, RequestHead};
use query::Query;

pub(super) use desk::Desk;
pub use desk::Seed;

/// One call of the sign-in.
pub(super) struct SignInCall {
    at: Instant,
    outputs: VecDeque<Output>,
    /// Whether the last of the outputs is the last word.
    ends: bool,
}

/// An HTTP answer.
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl SignInCall {
    /// The answer to a call of the sign-in; `None` when the path is none of it.
    pub(super) fn new(
        playbook: &Playbook,
        seed: &Seed,
        head: &RequestHead,
        now: Instant,
    ) -> Option<Self> {
        let plain = JsonReply::default();
        let refresh =
            ["/auth/exchange_user_api_key", "/auth/refresh"].contains(&head.path.as_str());
        let (method, special) = match head.path.as_str() {
            "/loginDeepControl" => ("GET", None),
            "/auth/poll" => ("GET", playbook.poll_reply()),
            _ if refresh => ("POST", playbook.refresh_reply()),
            _ => return None,
        };
        let special = special.unwrap_or(&plain);
        let mut reply = match &special.status {
            Some(status) => Reply {
                status: status.status,
                headers: status.headers.clone().into_iter().collect(),
                body: status.bytes(),
            },
            None if head.method != method => Reply::error(405, "this call takes another method"),
            None if special.bytes.is_some() => Reply::json(200, Vec::new()),
            None => plainly(playbook, seed, head, now),
        };
        if let Some(bytes) = &special.bytes {
            // It was checked when the script was read.
            reply.body.extend(bytes.content().unwrap_or_default());
        }
        Some(Self::with(reply, special, now))
    }

    fn with(reply: Reply, special: &JsonReply, now: Instant) -> Self {
        let mut outputs = VecDeque::new();
        if !special.silence {
            outputs.push_back(Output::Head { status: reply.status, headers: reply.headers });
            if !reply.body.is_empty() {
                outputs.push_back(Output::Send(Bytes::from(reply.body)));
            }
        }
        let ends = !special.silence && !special.stall;
        if ends {
            outputs.push_back(Output::End { trailers: Vec::new() });
        }
        Self { at: now + Duration::from_millis(special.delay_ms), outputs, ends }
    }

    pub(super) fn poll_output(&mut self, now: Instant) -> Output {
        if now < self.at && !self.outputs.is_empty() {
            return Output::Wait(Some(self.at));
        }
        self.outputs.pop_front().unwrap_or(Output::Wait(None))
    }

    pub(super) fn handle_reset(&mut self) {
        self.outputs.clear();
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ends && self.outputs.is_empty()
    }
}

/// What the calls answer when the script has no other wish.
fn plainly(playbook: &Playbook, seed: &Seed, head: &RequestHead, now: Instant) -> Reply {
    let rules = &playbook.script().sign_in;
    let mut desk = playbook.desk();
    let query = Query::new(&head.query);
    match head.path.as_str() {
        "/loginDeepControl" => {
            let (Some(id), Some(challenge)) = (query.get("uuid"), query.get("challenge")) else {
                return Reply::html(400, "This address is not that of a sign-in.");
            };
            desk.open(&id, challenge, rules);
            Reply::html(200, "You are signed in to the local server. This page can be closed.")
        }
        "/auth/poll" => {
            let (Some(id), Some(verifier)) = (query.get("uuid"), query.get("verifier")) else {
                return Reply::error(400, "uuid and verifier are needed");
            };
            match desk.poll(&id, &verifier, rules) {
                true => tokens(&desk.issue(seed, rules, now)),
                false => Reply::error(404, "not confirmed yet"),
            }
        }
        _ => match desk.refresh(head, seed, rules, now) {
            Some(issued) => tokens(&issued),
            None => Reply::error(401, "the refresh token is not good"),
        },
    }
}

fn tokens(issued: &desk::Issued) -> Reply {
    let mut body = json!({"accessToken": issued.access.expose()});
    if let Some(refresh) = &issued.refresh {
        body["refreshToken"] = refresh.expose().as_str().into();
    }
    Reply::json(200, body.to_string().into_bytes())
}

impl Reply {
    fn json(status: u16, body: Vec<u8>) -> Self {
        let headers = vec![
            ("content-type".into(), "application/json".into()),
            ("cache-control".into(), "no-store".into()),
        ];
        Self { status, headers, body }
    }

    fn error(status: u16, message: &str) -> Self {
        Self::json(status, json!({"error": message}).to_string().into_bytes())
    }

    /// Nothing of the request is in the page.
    fn html(status: u16, text: &str) -> Self {
        let body = format!(
            "<!doctype html><meta charset=\"utf-8\"><title>agentwire</title><p>{text}</p>\n"
        );
        let headers = vec![("content-type".into(), "text/html; charset=utf-8".into())];
        Self { status, headers, body: body.into_bytes() }
    }
}
