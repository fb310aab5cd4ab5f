//! What the two conformance programs share: the runner's messages and how they are framed.
//!
//! The runner of the Connect conformance suite talks to a program over stdin and stdout: each
//! message is a 4-byte big-endian length and a protobuf message.

use std::io;

use agentwire::rpc::Metadata;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::proto;

/// Path of the suite's service, with the slash before the method.
pub(crate) const SERVICE: &str = "/connectrpc.conformance.v1.ConformanceService/";
/// What a type URL has before the name of the message.
pub(crate) const TYPE_PREFIX: &str = "type.googleapis.com/";

/// Reads one message; `None` at the end of the input.
pub(crate) async fn read<M: Message + Default>(
    input: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<M>> {
    let len = match input.read_u32().await {
        Ok(len) => len,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; len as usize];
    input.read_exact(&mut bytes).await?;
    M::decode(&bytes[..]).map(Some).map_err(io::Error::other)
}

/// Writes one message.
pub(crate) async fn write(
    output: &mut (impl AsyncWrite + Unpin),
    message: &impl Message,
) -> io::Result<()> {
    let bytes = message.encode_to_vec();
    output.write_u32(u32::try_from(bytes.len()).map_err(io::Error::other)?).await?;
    output.write_all(&bytes).await?;
    output.flush().await
}

/// The suite's headers as metadata.
pub(crate) fn metadata(headers: &[proto::Header]) -> Metadata {
    let pairs = |header: &proto::Header| {
        let name = header.name.to_ascii_lowercase();
        let values = header.value.iter().map(move |value| (name.clone(), value.clone()));
        values.collect::<Vec<_>>()
    };
    headers.iter().flat_map(pairs).collect()
}

/// Metadata as the suite's headers.
pub(crate) fn headers(metadata: &Metadata) -> Vec<proto::Header> {
    let mut headers: Vec<proto::Header> = Vec::new();
    for (name, value) in metadata {
        match headers.iter_mut().find(|header| header.name == *name) {
            Some(header) => header.value.push(value.clone()),
            None => headers.push(proto::Header { name: name.clone(), value: vec![value.clone()] }),
        }
    }
    headers
}
