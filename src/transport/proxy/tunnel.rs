//! The tunnel through a proxy: `CONNECT` and its answer (RFC 9110, 9.3.6).

use std::fmt;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::error::{Error, NetworkFault, Result};
use crate::transport::dial::DialLimits;
use crate::transport::endpoint::Endpoint;

use super::ProxyUrl;

/// Has `proxy`, to which `io` is connected, make a connection to `endpoint`. Afterwards every byte
/// on `io` is the endpoint's.
///
/// # Errors
/// [`NetworkFault::Proxy`]; neither the credentials nor anything that the proxy said, which may
/// repeat them, is in it.
pub(crate) async fn open<T: AsyncRead + AsyncWrite + Unpin>(
    io: &mut T,
    proxy: &ProxyUrl,
    endpoint: &Endpoint,
    limits: &DialLimits,
) -> Result<()> {
    let limit = limits.proxy;
    let exchange = async {
        io.write_all(&request(proxy, endpoint)).await?;
        io.flush().await?;
        read_status(io, limits.proxy_head).await
    };
    let status = match tokio::time::timeout(limit, exchange).await {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => return Err(fault(proxy, format_args!("broke off: {}", error.kind()))),
        Err(_) => {
            let what = format_args!("had not connected to {endpoint} after {limit:?}");
            return Err(fault(proxy, what));
        }
    };
    match status {
        Some(200..=299) => Ok(()),
        Some(status) => Err(refused(proxy, endpoint, status)),
        None => Err(fault(proxy, "did not answer in HTTP/1")
            .with_hint("is the scheme of the proxy URL right, and the port?")),
    }
}

fn request(proxy: &ProxyUrl, endpoint: &Endpoint) -> Vec<u8> {
    let place = endpoint.host_and_port();
    let mut head = format!("CONNECT {place} HTTP/1.1\r\nhost: {place}\r\n");
    if let Some(authorization) = proxy.authorization() {
        head.push_str("proxy-authorization: ");
        head.push_str(authorization.expose());
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Reads the answer's head and not a byte more: what follows is not the proxy's. `None`: it is no
/// answer. One read a byte; a head is short and comes once a connection.
async fn read_status<T: AsyncRead + Unpin>(
    io: &mut T,
    limit: usize,
) -> std::io::Result<Option<u16>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        head.push(io.read_u8().await?);
        let fits = head.len() <= limit;
        if !fits || !b"HTTP/1.".iter().zip(&head).all(|(a, b)| a == b) {
            return Ok(None);
        }
    }
    let status = head.get(8..).and_then(|rest| rest.strip_prefix(b" ")).and_then(|rest| {
        let digits = rest.get(..3)?;
        let ends = rest.get(3).is_some_and(u8::is_ascii_whitespace);
        std::str::from_utf8(digits).ok().filter(|_| ends)?.parse().ok()
    });
    Ok(status)
}

fn refused(proxy: &ProxyUrl, endpoint: &Endpoint, status: u16) -> Error {
    let error = fault(proxy, format_args!("made no connection to {endpoint}: HTTP {status}"))
        .with_http_status(status);
    match status {
        407 if proxy.authorization().is_some() => {
            error.with_hint("the proxy does not accept the user and password in its URL")
        }
        407 => error.with_hint("the proxy wants a user and password: http://user:password@host"),
        401 | 403 | 405 => error.with_hint("the proxy does not let this host or port through"),
        502..=504 => error.with_hint("the proxy cannot reach the host"),
        _ => error,
    }
}

fn fault(proxy: &ProxyUrl, what: impl fmt::Display) -> Error {
    Error::network(NetworkFault::Proxy, format!("the proxy {proxy} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(url: &str, answer: &[u8]) -> (Result<()>, String, Vec<u8>) {
        within(&DialLimits::default(), url, answer).await
    }

    async fn within(
        limits: &DialLimits,
        url: &str,
        answer: &[u8],
    ) -> (Result<()>, String, Vec<u8>) {
        let proxy = ProxyUrl::parse(url).unwrap();
        let endpoint = Endpoint::parse("https://[fd00::1]").unwrap();
        let (mut near, mut far) = tokio::io::duplex(64 << 10);
        far.write_all(answer).await.unwrap();
        let result = open(&mut near, &proxy, &endpoint, limits).await;
        let mut asked = vec![0; 4_096];
        let len = far.read(&mut asked).await.unwrap();
        asked.truncate(len);
        drop(far);
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.unwrap();
        (result, String::from_utf8(asked).unwrap(), rest)
    }

    #[tokio::test(start_paused = true)]
    async fn connect_names_the_host_and_leaves_what_follows() {
        let answer = b"HTTP/1.1 200 Connection established\r\nvia: x\r\n\r\nfirst bytes";
        let (result, asked, rest) = answered("http://me:p%40ss@proxy:1", answer).await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(
            asked,
            "CONNECT [fd00::1]:443 HTTP/1.1\r\nhost: [fd00::1]:443\r\n\
             proxy-authorization: Basic bWU6cEBzcw==\r\n\r\n"
        );
        assert_eq!(rest, b"first bytes");
        let (result, asked, _) = answered("proxy", b"HTTP/1.0 204\r\n\r\n").await;
        assert!(result.is_ok() && !asked.contains("authorization"), "{result:?} {asked}");
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_typed_and_repeat_nothing() {
        let huge = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'a'; 16 << 10]].concat();
        let cases: [(&[u8], Option<u16>, &str); 8] = [
            (b"HTTP/1.1 407 zz9 me\r\n\r\nzz9", Some(407), "does not accept the user"),
            (b"HTTP/1.1 403 Forbidden\r\n\r\n", Some(403), "does not let"),
            (b"HTTP/1.1 502 \r\n\r\n", Some(502), "cannot reach"),
            (b"HTTP/1.1 302 Found\r\nlocation: http://zz9\r\n\r\n", Some(302), "HTTP 302"),
            (b"HTTP/1.1 2000\r\n\r\n", None, "did not answer in HTTP/1"),
            (b"\x15\x03\x01\0\x02", None, "did not answer in HTTP/1"),
            (b"HTTP/2.0 200\r\n\r\n", None, "did not answer in HTTP/1"),
            (&huge, None, "did not answer in HTTP/1"),
        ];
        for (answer, status, words) in cases {
            let (result, ..) = answered("http://me:zz9@proxy:1", answer).await;
            let error = result.unwrap_err();
            assert_eq!(error.kind(), &crate::error::Kind::Network(NetworkFault::Proxy), "{error}");
            assert_eq!(error.http_status(), status, "{error}");
            assert!(error.to_string().contains(words), "{error}");
            assert!(!format!("{error} {error:?}").contains("zz9"), "{error:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_head_can_be_set() {
        let answer = b"HTTP/1.1 200 OK\r\n\r\n";
        let limits = |proxy_head| DialLimits { proxy_head, ..DialLimits::default() };
        assert!(within(&limits(answer.len()), "proxy", answer).await.0.is_ok());
        assert!(within(&limits(answer.len() - 1), "proxy", answer).await.0.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_hangs_up_or_says_nothing() {
        let proxy = ProxyUrl::parse("proxy:1").unwrap();
        let (mut near, mut far) = tokio::io::duplex(1_024);
        far.write_all(b"HTTP/1.1 20").await.unwrap();
        let silent = open(&mut near, &proxy, &Endpoint::default(), &DialLimits::default())
            .await
            .unwrap_err();
        assert!(silent.message().contains("after 10s"), "{silent}");
        drop(far);
        let closed = open(&mut near, &proxy, &Endpoint::default(), &DialLimits::default())
            .await
            .unwrap_err();
        assert!(closed.message().contains("broke off"), "{closed}");
    }
}
