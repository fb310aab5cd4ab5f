//! The table forms of what may be written as a bare string.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::form::{Short, string_or_table};
use super::step::{self, Reset, WaitEvent, WaitFor};

macro_rules! tables {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? } => $expected:literal, $short:expr;)*) => {$(
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name { $(#[serde(default)] $field: $type,)* }

        impl From<$name> for step::$name {
            fn from(table: $name) -> Self {
                Self { $($field: table.$field,)* }
            }
        }

        impl Short for step::$name {
            const EXPECTED: &'static str = $expected;

            fn short(text: &str) -> Result<Self, String> {
                let make: fn(&str) -> Result<Self, String> = $short;
                make(text)
            }
        }

        impl<'de> Deserialize<'de> for step::$name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                string_or_table::<D, Self, $name>(deserializer)
            }
        }
    )*};
}

tables! {
    Say { text: String, delta: Option<usize>, pace_ms: Option<u64>, tokens: Option<bool> }
        => "a text or a table with `text`",
        |text| Ok(Self { text: text.into(), ..Self::default() });
    GetBlob { id: String } => "a blob id in hex or a table with `id`",
        |text| Ok(Self { id: text.into() });
    SetBlob { text: Option<String>, base64: Option<String>, zeros: Option<usize>, id: Option<String> }
        => "a text or a table with `text`, `base64` or `zeros`",
        |text| Ok(Self { text: Some(text.into()), ..Self::default() });
    ErrorStep { code: String, message: String, details: Vec<Value>, metadata: Map<String, Value> }
        => "a Connect code or a table with `code`",
        |text| Ok(Self { code: text.into(), ..Self::default() });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Waiting {
    event: WaitEvent,
    timeout_ms: Option<u64>,
}

impl From<Waiting> for WaitFor {
    fn from(table: Waiting) -> Self {
        Self { event: table.event, timeout_ms: table.timeout_ms }
    }
}

impl Short for WaitFor {
    const EXPECTED: &'static str = "an event or a table with `event`";

    fn short(text: &str) -> Result<Self, String> {
        let event = serde_json::from_value(Value::from(text)).map_err(|error| error.to_string())?;
        Ok(Self { event, timeout_ms: None })
    }
}

impl<'de> Deserialize<'de> for WaitFor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        string_or_table::<D, Self, Waiting>(deserializer)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Code {
    Number(u32),
    Table { code: u32 },
}

impl<'de> Deserialize<'de> for Reset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (Code::Number(code) | Code::Table { code }) = Code::deserialize(deserializer)?;
        Ok(Self { code })
    }
}
