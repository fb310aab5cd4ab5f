//! The suite's raw requests and answers: what no sound peer would send.

use agentwire::connect::{
    Compression as Encoding, Decoder, Envelope, Limits, error_from_http, gzip, header,
};
use agentwire::redact::Redactor;
use agentwire::rpc::http2::{Accepted, ClientConnection, OpenStream};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};

use crate::proto::message_contents::Data;
use crate::proto::{
    ClientResponseResult, Compression, Error, Header, MessageContents, RawHttpRequest,
    RawHttpResponse, StreamContents, raw_http_request, raw_http_response,
};
use crate::wire::headers;

fn header_map(list: &[Header]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for header in list {
        for value in &header.value {
            let name = HeaderName::from_bytes(header.name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
    }
    map
}

fn contents(contents: &MessageContents) -> Vec<u8> {
    let plain = match contents.data.clone() {
        Some(Data::Binary(bytes)) => bytes,
        Some(Data::Text(text)) => text.into_bytes(),
        Some(Data::BinaryMessage(any)) => any.value,
        None => Vec::new(),
    };
    match contents.compression() {
        Compression::Gzip => gzip::compress(&plain),
        // The others occur only where the name of the encoding is refused before the bytes matter.
        _ => plain,
    }
}

fn envelopes(stream: &StreamContents) -> Vec<u8> {
    let mut out = Vec::new();
    for item in &stream.items {
        let payload = item.payload.as_ref().map(contents).unwrap_or_default();
        let len = item.length.unwrap_or_else(|| u32::try_from(payload.len()).unwrap());
        out.extend(header(u8::try_from(item.flags).unwrap(), len));
        out.extend(payload);
    }
    out
}

/// Reads the whole request, then answers as told.
pub(crate) async fn respond(accepted: Accepted, raw: RawHttpResponse) {
    let Accepted { mut body, respond, .. } = accepted;
    while let Some(Ok(_)) = body.next().await {}
    let mut head = Response::new(());
    let status = if raw.status_code == 0 { 200 } else { u16::try_from(raw.status_code).unwrap() };
    *head.status_mut() = StatusCode::from_u16(status).unwrap();
    *head.headers_mut() = header_map(&raw.headers);
    let bytes = match &raw.body {
        Some(raw_http_response::Body::Unary(unary)) => contents(unary),
        Some(raw_http_response::Body::Stream(stream)) => envelopes(stream),
        None => Vec::new(),
    };
    let mut send = respond.send_head(head, false).unwrap();
    send.push(Bytes::from(bytes)).unwrap();
    if !raw.trailers.is_empty() {
        send.push_trailers(header_map(&raw.trailers));
    }
    // A client that has seen enough is gone.
    let _ = send.finish().await;
}

/// Sends a request as told and reads what the answer says.
pub(crate) async fn request(
    connection: &ClientConnection,
    base: &str,
    raw: &RawHttpRequest,
) -> ClientResponseResult {
    let mut request = Request::new(());
    *request.method_mut() = raw.verb.parse().unwrap();
    *request.uri_mut() = format!("{base}{}", raw.uri).parse().unwrap();
    *request.headers_mut() = header_map(&raw.headers);
    let bytes = match &raw.body {
        Some(raw_http_request::Body::Unary(unary)) => contents(unary),
        Some(raw_http_request::Body::Stream(stream)) => envelopes(stream),
        None => Vec::new(),
    };
    let OpenStream { mut body, send: _send } =
        connection.open(request, Some(Bytes::from(bytes)), true).unwrap();
    let head = body.head().await.unwrap();
    let mut raw = Vec::new();
    while let Some(chunk) = body.next().await {
        raw.extend_from_slice(&chunk.unwrap());
    }
    let pairs = agentwire::rpc::header::metadata(&head.headers);
    let streams = pairs
        .iter()
        .any(|(name, value)| name == "content-type" && value.starts_with("application/connect+"));
    let error = if streams {
        let mut rest = &raw[..];
        let mut decoder = Decoder::new(Limits::default(), Encoding::Gzip);
        let end = decoder.next(&mut rest).unwrap();
        let Some(Envelope::EndStream(end)) = end else { panic!("a message, not an error") };
        end.error.unwrap()
    } else {
        let now = std::time::SystemTime::UNIX_EPOCH;
        error_from_http(head.status.as_u16(), &pairs, &raw, &Redactor::verbatim(), now)
    };
    ClientResponseResult {
        response_headers: headers(&pairs),
        error: Some(Error {
            code: error.code().number().into(),
            message: Some(error.message().to_owned()),
            details: Vec::new(),
        }),
        http_status_code: Some(head.status.as_u16().into()),
        ..ClientResponseResult::default()
    }
}
