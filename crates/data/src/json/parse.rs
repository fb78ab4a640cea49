//! JSON text to values, through serde_json: its error texts are those that RedisJSON answers.

use std::fmt;

use serde_core::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Json, Node, Object, Text};

/// Why a text is no JSON.
#[derive(Debug)]
pub struct ParseError(serde_json::Error);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ParseError {}

impl Node {
    /// O(length of the text). Nests no deeper than [`super::DEPTH_MAX`].
    pub fn parse(text: &str) -> Result<Node, ParseError> {
        serde_json::from_str(text).map_err(ParseError)
    }
}

impl Json {
    pub fn parse(text: &str) -> Result<Json, ParseError> {
        Node::parse(text).map(Json::of)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(Builder)
    }
}

struct Builder;

impl<'de> Visitor<'de> for Builder {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = elements.next_element()? {
            nodes.push(node);
        }
        nodes.shrink_to_fit();
        Ok(Node::array(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        let mut object = Object::new();
        while let Some(name) = members.next_key::<Name>()? {
            let node = members.next_value()?;
            match object.find(name.0.as_str()) {
                Some(at) => object.members[at].1 = node,
                None => object.push(name.0, node),
            }
        }
        object.members.shrink_to_fit();
        Ok(Node::object(object))
    }
}

/// The name of a member.
struct Name(Text);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        struct NameBuilder;
        impl Visitor<'_> for NameBuilder {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string key")
            }

            fn visit_str<E>(self, value: &str) -> Result<Name, E> {
                Ok(Name(Text::new(value)))
            }
        }
        deserializer.deserialize_str(NameBuilder)
    }
}
