//! Protobuf, written and read by hand: fields by their numbers, and no schema.
//!
//! The tests of the Protobuf encoding stand on this, so that they share nothing with the
//! node's own idea of it.

/// A field that holds a number.
#[must_use]
pub fn number(field: u64, value: u64) -> Vec<u8> {
    let mut bytes = varint(field << 3);
    bytes.extend(varint(value));
    bytes
}

/// A field that holds text, bytes or a message.
#[must_use]
pub fn bytes(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = varint(field << 3 | 2);
    bytes.extend(delimited(value));
    bytes
}

/// A message behind its length.
#[must_use]
pub fn delimited(message: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = varint(message.as_ref().len() as u64);
    bytes.extend_from_slice(message.as_ref());
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// The messages that stand one after the other, each behind its length.
///
/// # Panics
/// If the last is not whole.
#[must_use]
pub fn messages(mut bytes: &[u8]) -> Vec<Fields> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        messages.push(Fields::read(take(&mut bytes)));
    }
    messages
}

fn take<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let length = usize::try_from(take_varint(bytes)).expect("a length");
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken
}

fn take_varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().expect("a whole varint");
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return value;
        }
    }
    panic!("a varint of more than ten bytes");
}

/// The fields of a message, in the order in which they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(u64, Value)>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Fields {
    /// Reads a message that holds numbers and bytes only.
    ///
    /// # Panics
    /// If it holds anything else, or is not whole.
    #[must_use]
    pub fn read(mut message: &[u8]) -> Self {
        let mut fields = Vec::new();
        while !message.is_empty() {
            let key = take_varint(&mut message);
            let value = match key & 7 {
                0 => Value::Number(take_varint(&mut message)),
                2 => Value::Bytes(take(&mut message).to_vec()),
                other => panic!("a field of wire type {other}"),
            };
            fields.push((key >> 3, value));
        }
        Self(fields)
    }

    /// Whether the field is there.
    #[must_use]
    pub fn has(&self, field: u64) -> bool {
        self.0.iter().any(|(held, _)| *held == field)
    }

    /// A number; 0 if it is not there.
    #[must_use]
    pub fn number(&self, field: u64) -> u64 {
        let held = |(number, value): &(u64, Value)| match value {
            Value::Number(value) if *number == field => Some(*value),
            Value::Number(_) | Value::Bytes(_) => None,
        };
        self.0.iter().find_map(held).unwrap_or_default()
    }

    /// Every value of the field that is bytes.
    pub fn all(&self, field: u64) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter_map(move |(number, value)| match value {
            Value::Bytes(value) if *number == field => Some(&value[..]),
            Value::Number(_) | Value::Bytes(_) => None,
        })
    }

    /// Text; empty if it is not there.
    #[must_use]
    pub fn text(&self, field: u64) -> String {
        self.all(field).next().map_or_else(String::new, |value| {
            String::from_utf8(value.to_vec()).expect("text is UTF-8")
        })
    }

    /// A message; empty if it is not there.
    #[must_use]
    pub fn message(&self, field: u64) -> Self {
        self.all(field).next().map(Self::read).unwrap_or_default()
    }
}
