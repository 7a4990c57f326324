//! What the full JSON API takes: the contract's own requests, spelled in JSON, and where they are asked.
//!
//! Unknown fields are refused: otherwise a misspelled `lease_ms` would lease for another time than was asked for, and
//! nobody would know. A field that is left out, or `null`, has the contract's default.

use super::{Call, Routes, answers as json};
use crate::api::Failure;
use crate::api::limits::invalid;
use crate::edges::service::Service;
use bytes::Bytes;
use raftqueue_proto::text::unhex;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::marker::PhantomData;

/// A list that keeps only as many items as show that it is too long: two bytes of JSON may stand for a hundred of
/// memory.
#[derive(Debug)]
pub(in crate::edges::http) struct AtMost<const MAX: usize, T>(Vec<T>);

#[cfg(test)]
impl<const MAX: usize, T> AtMost<MAX, T> {
    /// How many it has.
    pub(in crate::edges::http) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<const MAX: usize, T> Default for AtMost<MAX, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, const MAX: usize, T: Deserialize<'de>> Deserialize<'de> for AtMost<MAX, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(List::<MAX, T>(PhantomData))
    }
}

struct List<const MAX: usize, T>(PhantomData<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for List<MAX, T> {
    type Value = AtMost<MAX, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() <= MAX
            && let Some(item) = list.next_element()?
        {
            kept.push(item);
        }
        if kept.len() > MAX {
            while list.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(AtMost(kept))
    }
}

#[cfg(test)]
impl<const MAX: usize, T: schemars::JsonSchema> schemars::JsonSchema for AtMost<MAX, T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        Vec::<T>::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Vec::<T>::json_schema(generator)
    }
}

/// A request: fields, as in the contract, with their documentation.
macro_rules! request {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(default, deny_unknown_fields)]
        pub(in crate::edges::http::v1) struct $name {
            $($(#[$field_doc])* #[serde(deserialize_with = "null_is_absent")] pub(in crate::edges::http::v1) $field: $type,)*
        }
    };
}

/// `null` counts as left out: generated clients write it so.
fn null_is_absent<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(field: D) -> Result<T, D::Error> {
    Option::deserialize(field).map(Option::unwrap_or_default)
}

request! {
    /// Nothing to say.
    Nothing {}
}

/// How a request becomes the contract's. `name` is what stands in the path, if something does.
macro_rules! call {
    (
        $request:ident => $wire:ident, $answer:ident as $json:ident: |$self:ident, $name:ident| $value:expr
        $(; $bytes_max:path)?
    ) => {
        impl Call for $request {
            type Wire = v1::$wire;
            type Answer = v1::$answer;
            type Json = json::$json;
            const METHOD: Method = Method::$request;
            $(
                fn bytes_max(limits: &Limits) -> usize {
                    $bytes_max(limits)
                }
            )?

            fn into_wire($self, $name: String) -> Result<v1::$wire, Failure> {
                Ok($value)
            }
        }
    };
}

/// A call that says nothing beyond its path.
macro_rules! bare {
    ($(#[$doc:meta])* $name:ident($text:ident) => $wire:ident, $answer:ident as $json:ident: $value:expr) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $name {}

        call!($name => $wire, $answer as $json: |self, $text| $value);
    };
}

mod members;
mod messages;
mod topics;

pub(super) use members::Recover;

/// The routes of all calls, in the order in which they are described.
pub(super) fn add_all<S: Service>(routes: &mut Routes<S>) {
    topics::add_topics(routes);
    messages::add_all(routes);
    topics::add_others(routes);
    members::add_all(routes);
}

fn read_hex(name: &str, text: &str) -> Result<Bytes, Failure> {
    unhex(text)
        .map(Bytes::from)
        .ok_or_else(|| invalid(format!("{name}: must be hexadecimal digits, in pairs")))
}
