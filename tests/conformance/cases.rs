//! The suite's cases, from JSON to messages.

use std::fs::File;
use std::io::Read;
use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};

use crate::proto::TestCase;
use crate::schema::{self, PACKAGE};

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::from_file_descriptor_set(schema::compile()).unwrap());

/// Reads one of the two files.
pub(crate) fn read(name: &str) -> Vec<TestCase> {
    let mut text = String::new();
    let file = File::open(schema::data(name)).unwrap();
    lzma_rust2::XzReader::new(file, true).read_to_string(&mut text).unwrap();
    text.lines().map(parse).collect()
}

fn parse(line: &str) -> TestCase {
    let kind = POOL.get_message_by_name(&format!("{PACKAGE}.TestCase")).unwrap();
    let mut json = serde_json::Deserializer::from_str(line);
    let message = DynamicMessage::deserialize(kind, &mut json).unwrap();
    json.end().unwrap();
    TestCase::decode(&message.encode_to_vec()[..]).unwrap()
}

/// Whether two wrapped messages say the same, whatever the order of their fields.
pub(crate) fn same(a: &prost_types::Any, b: &prost_types::Any) -> bool {
    let read = |any: &prost_types::Any| {
        let name = any.type_url.rsplit('/').next().unwrap_or_default().to_owned();
        let kind = POOL.get_message_by_name(&name)?;
        DynamicMessage::decode(kind, &any.value[..]).ok()
    };
    let (a, b) = (read(a), read(b));
    a.is_some() && a == b
}
