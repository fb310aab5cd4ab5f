//! Tool calls as the service makes them: `McpArgs` read from the bytes of the message.
//!
//! Read from the bytes and not from the generated type, because the order of the arguments is the
//! model's and a map of prost forgets it.

use serde_json::{Map, Value};

use super::value::{self, TooDeep};
use crate::context::ToolCall;
use crate::error::{Error, Result};
use crate::ids::IdSource;
use crate::wire::{Reader, WireError};

/// What a call without any name goes by (BEHAVIOUR 4).
const NAMELESS: &str = "cursor_tool";

/// Reads the tool call of a server message: the payload of an envelope whose case is
/// `exec_server_message.mcp_args`.
///
/// The id is the service's, or a fresh one where it gave none; the name is `tool_name`, else
/// `name`. Arguments that are no `google.protobuf.Value` are text ([`value::argument`]).
///
/// # Errors
///
/// `Protocol` when the message has no tool call or is not well-formed, `LimitExceeded` when an
/// argument nests too deep: the service is to be told so in the result of the call.
pub fn tool_call(payload: &[u8], ids: &mut dyn IdSource) -> Result<ToolCall> {
    let mut call = Call::default();
    // The parts of a message that is sent in several pieces add up, as protobuf says.
    fields(payload, 2, |exec| fields(exec, 11, |args| call.read(args)))?;
    if !call.found {
        return Err(Error::protocol("the message holds no tool call"));
    }
    if let Some(error) = call.too_deep {
        return Err(Error::from(error).with_hint("the call was not handed out"));
    }
    let name = [call.tool_name, call.name, NAMELESS].into_iter().find(|name| !name.is_empty());
    let id = match call.id {
        "" => ids.next_id().to_string(),
        id => id.to_owned(),
    };
    Ok(ToolCall {
        id,
        name: name.unwrap_or(NAMELESS).to_owned(),
        arguments: Value::Object(call.arguments),
    })
}

/// Calls `read` with the content of every field of this number.
fn fields<'a>(
    bytes: &'a [u8],
    number: u32,
    mut read: impl FnMut(&'a [u8]) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.field()? {
        if field.number == number {
            read(field.value.bytes()?)?;
        }
    }
    Ok(())
}

/// What is read so far.
#[derive(Default)]
struct Call<'a> {
    found: bool,
    name: &'a str,
    tool_name: &'a str,
    id: &'a str,
    arguments: Map<String, Value>,
    too_deep: Option<TooDeep>,
}

impl<'a> Call<'a> {
    fn read(&mut self, args: &'a [u8]) -> Result<(), WireError> {
        self.found = true;
        let mut reader = Reader::new(args);
        while let Some(field) = reader.field()? {
            match field.number {
                1 => self.name = field.value.text()?,
                2 => self.argument(field.value.bytes()?)?,
                3 => self.id = field.value.text()?,
                5 => self.tool_name = field.value.text()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn argument(&mut self, entry: &'a [u8]) -> Result<(), WireError> {
        let (mut key, mut bytes) = ("", &[][..]);
        let mut reader = Reader::new(entry);
        while let Some(field) = reader.field()? {
            match field.number {
                1 => key = field.value.text()?,
                2 => bytes = field.value.bytes()?,
                _ => {}
            }
        }
        match value::argument(bytes) {
            // A repeated key keeps its first place and takes the last value.
            Ok(value) => drop(self.arguments.insert(key.to_owned(), value)),
            Err(error) => self.too_deep = Some(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::CountingIds;
    use crate::wire::{put_bytes, put_nested, put_str};

    fn payload(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        put_nested(&mut out, 2, |out| {
            put_str(out, 15, "exec-id");
            put_nested(out, 11, write);
        });
        out
    }

    fn entry(out: &mut Vec<u8>, key: &str, value: &[u8]) {
        put_nested(out, 2, |out| {
            put_str(out, 1, key);
            put_bytes(out, 2, value);
        });
    }

    #[test]
    fn arguments_keep_the_order_of_the_model() {
        let payload = payload(|out| {
            entry(out, "z", &[0x20, 1]);
            entry(out, "a", b"README.md");
            entry(out, "10", b"\xff");
            entry(out, "z", &[0x08, 0]);
            put_str(out, 1, "srv-tool");
        });
        let call = tool_call(&payload, &mut CountingIds::hex()).unwrap();
        assert_eq!(
            call.arguments.to_string(),
            "{\"z\":null,\"a\":\"README.md\",\"10\":\"\u{fffd}\"}"
        );
        assert_eq!(call.name, "srv-tool");
        assert_eq!(call.id, "00000000-0000-4000-8000-000000000001", "never the exec id");
    }

    #[test]
    fn ids_and_names_in_their_order_of_preference() {
        let mut ids = CountingIds::hex();
        let full = payload(|out| {
            put_str(out, 1, "n");
            put_str(out, 3, "call-1");
            put_str(out, 5, "t");
        });
        let call = tool_call(&full, &mut ids).unwrap();
        assert_eq!((&call.id[..], &call.name[..]), ("call-1", "t"));
        let bare = tool_call(&payload(|_| {}), &mut ids).unwrap();
        assert_eq!(bare.name, NAMELESS);
        assert_ne!(tool_call(&payload(|_| {}), &mut ids).unwrap().id, bare.id);
    }

    #[test]
    fn what_is_no_call_is_an_error() {
        let mut ids = CountingIds::hex();
        for bytes in [&[][..], &[0x12, 2, 0x12, 0], &[0x12, 5]] {
            let error = tool_call(bytes, &mut ids).unwrap_err();
            assert_eq!(error.kind(), &crate::error::Kind::Protocol);
        }
        let mut deep = Vec::new();
        for _ in 0..=value::MAX_DEPTH {
            let inner = std::mem::take(&mut deep);
            put_nested(&mut deep, 6, |out| put_bytes(out, 1, &inner));
        }
        let error = tool_call(&payload(|out| entry(out, "k", &deep)), &mut ids).unwrap_err();
        assert_eq!(error.kind(), &crate::error::Kind::LimitExceeded);
    }
}
