//! What is held to a schema, as it was read: texts without escapes stay where the request has them.
//!
//! An object that has a name twice is refused: the schema would see one of the two and the service
//! perhaps the other (RFC 8259, section 4).

use jsonschema::{
    JsonType,
    json::{Array, Json, Node, NodeIdentity, Object},
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Number, Value};
use std::{borrow::Cow, fmt, slice};

/// A value of JSON.
#[derive(Debug)]
pub(crate) enum Instance<'a> {
    Null,
    Boolean(bool),
    Number(Number),
    Text(Cow<'a, str>),
    Array(Vec<Instance<'a>>),
    /// By name, in order.
    Object(Vec<(Cow<'a, str>, Instance<'a>)>),
}

/// How schemas read an [`Instance`].
#[derive(Debug)]
pub(crate) struct Instances;

impl Json for Instances {
    type Node<'a> = &'a Instance<'a>;
    type PreparedKey = String;
    type StringBuffer = Option<Instance<'static>>;

    /// As many as for the library's own kind, whose objects are in order, too.
    const KEYS_PER_LOOKUP: usize = 2;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(
        buffer: &mut Option<Instance<'static>>,
        text: &str,
        f: impl for<'n> FnOnce(&'n Instance<'n>) -> T,
    ) -> T {
        f(buffer.insert(Instance::Text(Cow::Owned(text.to_owned()))))
    }
}

impl<'a> Node<'a, Instances> for &'a Instance<'a> {
    type Object = &'a [(Cow<'a, str>, Instance<'a>)];
    type Array = &'a [Instance<'a>];
    type Number = &'a Number;

    fn as_object(&self) -> Option<Self::Object> {
        if let Instance::Object(members) = self { Some(members) } else { None }
    }

    fn as_array(&self) -> Option<Self::Array> {
        if let Instance::Array(elements) = self { Some(elements) } else { None }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        if let Instance::Text(text) = self { Some(Cow::Borrowed(text)) } else { None }
    }

    fn as_number(&self) -> Option<&'a Number> {
        if let Instance::Number(number) = self { Some(number) } else { None }
    }

    fn as_boolean(&self) -> Option<bool> {
        if let Instance::Boolean(boolean) = self { Some(*boolean) } else { None }
    }

    fn is_null(&self) -> bool {
        matches!(self, Instance::Null)
    }

    fn json_type(&self) -> JsonType {
        match self {
            Instance::Null => JsonType::Null,
            Instance::Boolean(_) => JsonType::Boolean,
            Instance::Number(_) => JsonType::Number,
            Instance::Text(_) => JsonType::String,
            Instance::Array(_) => JsonType::Array,
            Instance::Object(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match (self, expected) {
            (Instance::Text(text), Value::String(expected)) => text == expected,
            (Instance::Text(_), _) | (_, Value::String(_)) => false,
            _ => jsonschema::json::cmp::equal(&self.to_value(), expected),
        }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(match self {
            Instance::Null => Value::Null,
            Instance::Boolean(boolean) => Value::Bool(*boolean),
            Instance::Number(number) => Value::Number(number.clone()),
            Instance::Text(text) => Value::String(text.clone().into_owned()),
            Instance::Array(elements) => {
                elements.iter().map(|element| element.to_value().into_owned()).collect()
            }
            Instance::Object(members) => {
                let owned = |(name, value): &'a (Cow<'a, str>, Instance<'a>)| {
                    (name.clone().into_owned(), value.to_value().into_owned())
                };
                members.iter().map(owned).collect()
            }
        })
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref::<Instance<'_>>(self).addr()))
    }
}

impl<'a> Object<'a, Instances> for &'a [(Cow<'a, str>, Instance<'a>)] {
    type Node = &'a Instance<'a>;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        <[_]>::len(self)
    }

    fn get(&self, key: &String) -> Option<&'a Instance<'a>> {
        let at = self.binary_search_by(|(name, _)| (**name).cmp(key)).ok()?;
        Some(&self[at].1)
    }

    fn members(&self) -> Members<'a> {
        Members(self.iter())
    }
}

/// The members of an object.
pub(crate) struct Members<'a>(slice::Iter<'a, (Cow<'a, str>, Instance<'a>)>);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a Instance<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (&**name, value))
    }
}

impl<'a> Array<'a, Instances> for &'a [Instance<'a>] {
    type Node = &'a Instance<'a>;
    type ElementsIter = slice::Iter<'a, Instance<'a>>;

    fn len(&self) -> usize {
        <[_]>::len(self)
    }

    fn elements(&self) -> Self::ElementsIter {
        self.iter()
    }
}

impl<'de> Deserialize<'de> for Instance<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OfInstance)
    }
}

struct OfInstance;

impl<'de> Visitor<'de> for OfInstance {
    type Value = Instance<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Instance<'de>, E> {
        Ok(Instance::Null)
    }

    fn visit_bool<E: Error>(self, boolean: bool) -> Result<Instance<'de>, E> {
        Ok(Instance::Boolean(boolean))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Instance<'de>, E> {
        Ok(Instance::Number(number.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Instance<'de>, E> {
        Ok(Instance::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Instance<'de>, E> {
        let number = Number::from_f64(number);
        number.map(Instance::Number).ok_or_else(|| E::custom("a number is out of range"))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Instance<'de>, E> {
        Ok(Instance::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Instance<'de>, E> {
        Ok(Instance::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut given: A) -> Result<Instance<'de>, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = given.next_element()? {
            elements.push(element);
        }
        Ok(Instance::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut given: A) -> Result<Instance<'de>, A::Error> {
        let mut members: Vec<(Cow<'de, str>, Instance<'de>)> = Vec::new();
        while let Some(Name(name)) = given.next_key()? {
            members.push((name, given.next_value()?));
        }
        members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(A::Error::custom("an object has a name twice"));
        }
        Ok(Instance::Object(members))
    }
}

/// The name of a member; `Cow` by itself would be read as its own text.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfName;

        impl<'de> Visitor<'de> for OfName {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(OfName)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonschema::json::conformance;

    fn read(text: &str) -> Result<Instance<'_>, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn the_library_reads_instances_as_it_has_to() {
        let text = conformance::document().to_string();
        conformance::assert_conformance::<Instances>(&&read(&text).unwrap());
    }

    #[test]
    fn an_instance_is_what_any_reader_reads() {
        for text in [
            "null",
            "[true, false, -1, 0.5, 18446744073709551615]",
            r#"{"b": [], "a": {"": {}}, "é\n\u00e9": "\ud83d\ude00"}"#,
            r#"  "plain"  "#,
        ] {
            let instance = read(text).unwrap();
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(*(&instance).to_value(), value, "{text}");
        }
        for text in ["", "[1,]", "{", "01", "1e999", "nul", "\"\u{1}\"", "[1] 2"] {
            assert!(!read(text).unwrap_err().is_data(), "{text}");
        }
        assert!(read(&"[".repeat(200)).is_err());
    }

    #[test]
    fn a_name_that_is_there_twice_is_refused_however_it_is_written() {
        for text in [r#"{"a": 1, "b": 2, "a": 1}"#, r#"[{"x": {"a": 1, "\u0061": 2}}]"#] {
            assert!(read(text).unwrap_err().is_data(), "{text}");
        }
    }

    #[test]
    fn texts_are_compared_as_they_read() {
        let text = read(r#"["a\u0062", 1]"#).unwrap();
        let Instance::Array(elements) = &text else { panic!("{text:?}") };
        let [text, number] = &elements[..] else { panic!("{elements:?}") };
        let equals = |node: &&Instance<'_>, value: Value| node.equals_value(&value);
        assert!(equals(&text, "ab".into()) && !equals(&text, "a".into()));
        assert!(!equals(&text, 1.into()) && !equals(&number, "1".into()));
        assert!(equals(&number, 1.0.into()));
    }

    #[test]
    fn texts_without_escapes_are_not_copied() {
        let instance = read(r#"{"name": "text"}"#).unwrap();
        let Instance::Object(members) = &instance else { panic!("{instance:?}") };
        let (name, Instance::Text(text)) = &members[0] else { panic!("{members:?}") };
        assert!(matches!((name, text), (Cow::Borrowed("name"), Cow::Borrowed("text"))));
    }
}
