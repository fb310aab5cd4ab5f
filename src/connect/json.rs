//! JSON one level at a time: what is not asked for is passed over, neither built nor recursed
//! into, so a deep or wide value costs no stack and no memory beside its text (FAULTS M18, M19).

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// How many entries of an array or an object are looked at; no stream has that many trailers. No option:
/// the limit of the end-stream message bounds what is read, this only what is made of it.
pub(super) const MAX_ENTRIES: usize = 1024;

/// The members of an error or an end-stream object, unparsed, the last one of each name.
pub(super) struct Members<'a>(Vec<(String, &'a str)>);

impl<'a> Members<'a> {
    /// Reads the outermost level of `raw`. `None` when it is no object.
    pub(super) fn parse(raw: &'a str) -> Option<Self> {
        serde_json::from_str(raw).ok().map(|Object(members)| Self(members))
    }

    /// The JSON of a member that is there and not `null`.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, raw)| *raw).filter(|raw| *raw != "null")
    }
}

/// The members of the object `raw`, unparsed; none when it is no object.
pub(super) fn members(raw: &str) -> Vec<(String, &str)> {
    serde_json::from_str(raw).map(|Object(members)| members).unwrap_or_default()
}

/// The entries of the array `raw`, unparsed; none when it is no array.
pub(super) fn elements(raw: &str) -> Vec<&str> {
    serde_json::from_str(raw).map(|Array(elements)| elements).unwrap_or_default()
}

/// The text of the string `raw`.
pub(super) fn string(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

struct Object<'a>(Vec<(String, &'a str)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Walk(PhantomData::<Self>))
    }
}

struct Array<'a>(Vec<&'a str>);

impl<'de: 'a, 'a> Deserialize<'de> for Array<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Walk(PhantomData::<Self>))
    }
}

struct Walk<T>(PhantomData<T>);

impl<'de: 'a, 'a> Visitor<'de> for Walk<Object<'a>> {
    type Value = Object<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut members = Vec::new();
        while members.len() < MAX_ENTRIES {
            match map.next_entry::<String, &RawValue>()? {
                Some((name, raw)) => members.push((name, raw.get())),
                None => return Ok(Object(members)),
            }
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Object(members))
    }
}

impl<'de: 'a, 'a> Visitor<'de> for Walk<Array<'a>> {
    type Value = Array<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        let mut elements = Vec::new();
        while elements.len() < MAX_ENTRIES {
            match seq.next_element::<&RawValue>()? {
                Some(raw) => elements.push(raw.get()),
                None => return Ok(Array(elements)),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Array(elements))
    }
}
