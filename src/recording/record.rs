//! One line of a recording.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::connect::Code;
use crate::error::{Error, Kind, NetworkFault};

/// One thing that happened in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Microseconds since the run began.
    pub at_us: u64,
    /// The run, from 1.
    pub run: u32,
    /// The stream within the run, from 1.
    pub stream: u32,
    /// What it was.
    #[serde(flatten)]
    pub what: What,
}

/// What happened; see the table of the [module](super).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum What {
    /// A run begins.
    Run {
        /// Its `x-request-id`.
        request_id: String,
        /// Attempts after the first that it may make.
        retries: u32,
        /// Tools that only look.
        read_only_tools: Vec<String>,
        /// There may be other credentials when the first are refused.
        renewable: bool,
        /// How long all of it may take.
        deadline_us: Option<u64>,
    },
    /// Another stream is asked for.
    Open,
    /// Bytes of the request's body.
    Client {
        /// As they were handed over to be written.
        #[serde(with = "base64")]
        bytes: Bytes,
    },
    /// Bytes of the response's body.
    Server {
        /// As they were cut on the way.
        #[serde(with = "base64")]
        bytes: Bytes,
    },
    /// The head of the response.
    Head {
        /// HTTP status.
        status: u16,
        /// Names in lower case and values, in the order they came.
        headers: Vec<(String, String)>,
    },
    /// The response ended in good order.
    End,
    /// The stream or its connection was lost, or there was none.
    Lost(Loss),
    /// There were no credentials for the stream, or none but those that were refused.
    NoCredentials,
    /// This side ended its body.
    HalfClose,
    /// This side reset the stream.
    Reset {
        /// The HTTP/2 code.
        code: u32,
    },
    /// Tool calls were answered.
    Answer {
        /// Those.
        calls: Vec<Called>,
    },
    /// A message of the user went into the running turn.
    Say,
    /// The caller stopped the run.
    Cancel,
    /// A question was given to a handler.
    Serve {
        /// The exec or query by its name in the schema.
        name: String,
        /// It only looks.
        read_only: bool,
    },
    /// A handler came back.
    Served {
        /// Which question of the run, from 0.
        nth: u64,
        /// What it said.
        how: ServedHow,
    },
    /// The file is as long as it may be.
    Limit,
}

impl std::fmt::Debug for What {
    /// Names and sizes: a record in a log must not show what was said.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Run { request_id, .. } => write!(f, "Run({request_id})"),
            Self::Open => f.write_str("Open"),
            Self::Client { bytes } => write!(f, "Client({} bytes)", bytes.len()),
            Self::Server { bytes } => write!(f, "Server({} bytes)", bytes.len()),
            Self::Head { status, .. } => write!(f, "Head({status})"),
            Self::End => f.write_str("End"),
            Self::Lost(loss) => write!(f, "Lost({})", loss.error),
            Self::NoCredentials => f.write_str("NoCredentials"),
            Self::HalfClose => f.write_str("HalfClose"),
            Self::Reset { code } => write!(f, "Reset({code})"),
            Self::Answer { calls } => write!(f, "Answer({} calls)", calls.len()),
            Self::Say => f.write_str("Say"),
            Self::Cancel => f.write_str("Cancel"),
            Self::Serve { name, .. } => write!(f, "Serve({name})"),
            Self::Served { nth, how } => write!(f, "Served({nth}, {how:?})"),
            Self::Limit => f.write_str("Limit"),
        }
    }
}

/// A tool call that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Called {
    /// Its id, as the caller had it.
    pub id: String,
    /// The tool's name.
    pub name: String,
}

/// What a handler said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServedHow {
    /// It did what was asked.
    Done,
    /// It refused, or failed.
    Refused,
}

/// How a stream was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// [`Kind::as_str`].
    pub error: String,
    /// The fault of the network, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The HTTP/2 code that came with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http2: Option<u32>,
    /// The Connect code, by its name.
    pub code: String,
    /// The error's message.
    pub message: String,
}

impl From<&Error> for Loss {
    fn from(error: &Error) -> Self {
        let kind = error.kind();
        let (fault, http2) = match kind {
            Kind::Network(fault) => (Some(fault.as_str().to_owned()), fault.http2_code()),
            _ => (None, None),
        };
        let error_name = kind.as_str().to_owned();
        let message = error.message().to_owned();
        Self { error: error_name, fault, http2, code: error.code().as_str().to_owned(), message }
    }
}

impl From<&Loss> for Error {
    fn from(loss: &Loss) -> Self {
        let message = crate::redact::clean(&loss.message);
        let kind = match &loss.fault {
            Some(fault) => Kind::Network(fault_of(fault, loss.http2.unwrap_or_default())),
            None => Kind::Rejected,
        };
        Self::new(kind, message).with_code(loss.code.parse().unwrap_or(Code::Unknown))
    }
}

/// A name that a later version gave is taken as a cut: what follows from it is the same.
fn fault_of(name: &str, code: u32) -> NetworkFault {
    match name {
        "dns" => NetworkFault::Dns,
        "connect" => NetworkFault::Connect,
        "proxy" => NetworkFault::Proxy,
        "tls" => NetworkFault::Tls,
        "alpn" => NetworkFault::Alpn,
        "refused" => NetworkFault::Refused,
        "reset" => NetworkFault::Reset(code),
        "goaway" => NetworkFault::GoAway(code),
        "stalled" => NetworkFault::Stalled,
        _ => NetworkFault::Cut,
    }
}

mod base64 {
    use ::base64::Engine as _;
    use ::base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        let bytes = STANDARD.decode(text.as_bytes());
        bytes.map(Bytes::from).map_err(|_| de::Error::custom("not base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_comes_back() {
        use NetworkFault::{Alpn, Connect, Cut, Dns, GoAway, Proxy, Refused, Reset, Stalled, Tls};
        let faults = [Dns, Connect, Proxy, Tls, Alpn, Refused, Reset(8), GoAway(11), Cut, Stalled];
        for fault in faults {
            let error = Error::network(fault, "gone");
            assert_eq!(Error::from(&Loss::from(&error)), error);
        }
        let other = Error::limit("too much");
        assert_eq!(Error::from(&Loss::from(&other)).message(), "too much");
    }

    #[test]
    fn a_record_is_one_line_of_plain_members() {
        let what = What::Server { bytes: Bytes::from_static(b"\0\xffhi") };
        let record = Record { at_us: 7, run: 1, stream: 2, what };
        let line = serde_json::to_string(&record).unwrap();
        assert_eq!(line, r#"{"at_us":7,"run":1,"stream":2,"kind":"server","bytes":"AP9oaQ=="}"#);
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
        assert_eq!(format!("{:?}", record.what), "Server(4 bytes)");
    }
}
