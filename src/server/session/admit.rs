//! Who may ask, and how a request must look (FAULTS M100, M101).

use super::RequestHead;
use crate::Error;
use crate::error::Kind;
use crate::secret::Secret;

/// An answer to a request that is not served.
#[derive(Debug)]
pub(in crate::server) struct Refusal {
    /// Why.
    pub(in crate::server) error: Error,
    /// The HTTP status.
    pub(in crate::server) status: u16,
    /// Headers beside the content type.
    pub(in crate::server) headers: Vec<(String, String)>,
}

impl Refusal {
    pub(in crate::server) fn new(status: u16, error: Error) -> Self {
        Self { error, status, headers: Vec::new() }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// Checks method, content type and token of a call; the path was looked at before.
pub(in crate::server) fn admit(
    head: &RequestHead,
    content_type: &str,
    token: Option<&Secret>,
) -> Result<(), Refusal> {
    if head.method != "POST" {
        let error = Error::invalid("this call takes POST only");
        return Err(Refusal::new(405, error).header("allow", "POST"));
    }
    let given = head.header("content-type").unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case(content_type) {
        let error = Error::invalid(format!("this call takes {content_type} only"));
        return Err(Refusal::new(415, error).header("accept-post", content_type));
    }
    match token {
        Some(token) if !carries(head, token) => {
            let error = Error::new(Kind::Unauthenticated, "the bearer token is missing or wrong");
            Err(Refusal::new(401, error))
        }
        _ => Ok(()),
    }
}

/// Whether the request carries the token.
pub(in crate::server) fn carries(head: &RequestHead, token: &Secret) -> bool {
    let Some((scheme, given)) =
        head.header("authorization").and_then(|value| value.split_once(' '))
    else {
        return false;
    };
    scheme.eq_ignore_ascii_case("bearer")
        && same(given.trim().as_bytes(), token.expose().as_bytes())
}

/// Compares without stopping at the first difference, so that the time taken tells nothing about
/// where it is. The length is no secret.
fn same(a: &[u8], b: &[u8]) -> bool {
    let different = a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b));
    std::hint::black_box(different) == 0 && a.len() == b.len()
}

/// The JSON body of an error, as the Connect protocol has it.
pub(in crate::server) fn error_body(error: &Error) -> Vec<u8> {
    let body = serde_json::json!({"code": error.code().as_str(), "message": error.message()});
    body.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_and_content_type() {
        let token = Secret::from("tok-1");
        let head = |authorization: &str, content_type: &str| {
            let headers = [("authorization", authorization), ("content-type", content_type)];
            RequestHead::post("/x", headers)
        };
        let status = |head: &RequestHead| {
            admit(head, "application/proto", Some(&token)).map_err(|refusal| refusal.status)
        };
        assert_eq!(status(&head("Bearer tok-1", "application/proto")), Ok(()));
        assert_eq!(status(&head("bearer tok-1", "Application/Proto; charset=utf-8")), Ok(()));
        for wrong in ["Bearer tok-2", "Bearer tok-", "Bearer tok-11", "tok-1", "Basic tok-1", ""] {
            assert_eq!(status(&head(wrong, "application/proto")), Err(401), "{wrong}");
        }
        assert_eq!(status(&head("Bearer tok-1", "application/json")), Err(415));
        let get = RequestHead { method: "GET".into(), ..head("Bearer tok-1", "application/proto") };
        assert_eq!(status(&get), Err(405));
        assert!(admit(&head("", "application/proto"), "application/proto", None).is_ok());
    }
}
