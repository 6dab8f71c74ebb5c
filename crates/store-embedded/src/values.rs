//! Values on disk: a version, a checksum over key and content, the content. Numbers are
//! little endian; "none" is the largest number.

use bytes::Bytes;
use std::collections::BTreeMap;
use store::{
    Committed, Entry, Error, Incarnation, Position, StreamName,
    rules::{Meta, Span, Stored},
};
use types::Timestamp;
use xxhash_rust::xxh3::Xxh3;

const VERSION: u8 = 1;
const HEADER: usize = 9;

fn checksum(key: &[u8], content: &[u8]) -> [u8; 8] {
    let mut hash = Xxh3::new();
    hash.update(&[VERSION]);
    hash.update(&(key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(content);
    hash.digest().to_le_bytes()
}

pub(crate) fn seal(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER + content.len());
    value.push(VERSION);
    value.extend_from_slice(&checksum(key, content));
    value.extend_from_slice(content);
    value
}

fn damaged(key: &[u8], what: &str) -> Error {
    // Values may be a customer's, keys are needed to find them.
    Error::corrupt(format!("{what} under `{}`", key.escape_ascii()))
}

/// Checks a value and gives a reader of its content.
pub(crate) fn open<'a>(key: &'a [u8], value: &'a [u8]) -> Result<Reader<'a>, Error> {
    match value.split_at_checked(HEADER) {
        Some(([VERSION, sum @ ..], content)) if *sum == checksum(key, content) => {
            Ok(Reader { key, content })
        }
        Some(([VERSION, ..], _)) => Err(damaged(key, "a wrong checksum")),
        Some(_) => Err(damaged(key, "an unknown version")),
        None => Err(damaged(key, "a value that is too short")),
    }
}

pub(crate) struct Reader<'a> {
    key: &'a [u8],
    content: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) =
            self.content.split_first_chunk().ok_or_else(|| damaged(self.key, "a short content"))?;
        self.content = rest;
        Ok(*taken)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Error> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn time(&mut self) -> Result<Option<Timestamp>, Error> {
        Ok(Some(self.number()?).filter(|at| *at != u64::MAX).map(Timestamp))
    }

    fn position(&mut self) -> Result<Position, Error> {
        Ok(Position { incarnation: Incarnation(self.number()?), revision: self.number()? })
    }

    fn name(&mut self) -> Result<&'a str, Error> {
        let [len] = self.take()?;
        let split = self.content.split_at_checked(len.into());
        let (name, rest) = split.ok_or_else(|| damaged(self.key, "a short content"))?;
        self.content = rest;
        std::str::from_utf8(name).map_err(|_| damaged(self.key, "a wrong name"))
    }

    fn rest(self) -> Bytes {
        Bytes::copy_from_slice(self.content)
    }
}

struct Content(Vec<u8>);

impl Content {
    fn new() -> Self {
        Self(Vec::with_capacity(64))
    }

    fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn time(self, at: Option<Timestamp>) -> Self {
        self.number(at.map_or(u64::MAX, |at| at.0))
    }

    fn position(self, position: Position) -> Self {
        self.number(position.incarnation.0).number(position.revision)
    }

    fn rest(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn seal(self, key: &[u8]) -> Vec<u8> {
        seal(key, &self.0)
    }
}

pub(crate) fn number(key: &[u8], number: u64) -> Vec<u8> {
    Content::new().number(number).seal(key)
}

pub(crate) fn time(key: &[u8], at: Option<Timestamp>) -> Vec<u8> {
    Content::new().time(at).seal(key)
}

pub(crate) fn meta(key: &[u8], meta: &Meta) -> Vec<u8> {
    let content = Content::new().position(meta.position).number(meta.fence).time(meta.wake);
    let content = content.number(meta.bytes).number(meta.known_from);
    let streams = meta.streams.iter().fold(content, |content, (name, span)| {
        let name = name.as_str().as_bytes();
        content.rest(&[name.len() as u8]).rest(name).number(span.first).number(span.last)
    });
    streams.seal(key)
}

pub(crate) fn read_meta(key: &[u8], value: &[u8]) -> Result<Meta, Error> {
    let mut from = open(key, value)?;
    let mut meta = Meta::at(from.position()?);
    meta.fence = from.number()?;
    meta.wake = from.time()?;
    meta.bytes = from.number()?;
    meta.known_from = from.number()?;
    let mut streams = BTreeMap::new();
    while !from.content.is_empty() {
        let name = StreamName::parse(from.name()?)?;
        streams.insert(name, Span { first: from.number()?, last: from.number()? });
    }
    meta.streams = streams;
    Ok(meta)
}

pub(crate) fn record(key: &[u8], stored: &Stored) -> Vec<u8> {
    Content::new().number(stored.revision).time(stored.expires).rest(&stored.value).seal(key)
}

pub(crate) fn read_record(key: &[u8], value: &[u8]) -> Result<Stored, Error> {
    let mut from = open(key, value)?;
    let (revision, expires) = (from.number()?, from.time()?);
    Ok(Stored { revision, expires, value: from.rest() })
}

pub(crate) fn entry(key: &[u8], entry: &Entry) -> Vec<u8> {
    Content::new().number(entry.revision).rest(&entry.value).seal(key)
}

pub(crate) fn read_entry(key: &[u8], value: &[u8], sequence: u64) -> Result<Entry, Error> {
    let mut from = open(key, value)?;
    Ok(Entry { sequence, revision: from.number()?, value: from.rest() })
}

/// The reply that a commit's id is remembered by.
pub(crate) struct Remembered {
    pub(crate) digest: u128,
    pub(crate) at: Timestamp,
    pub(crate) reply: Committed,
}

pub(crate) fn remembered(key: &[u8], known: &Remembered) -> Vec<u8> {
    let content = Content::new().rest(&known.digest.to_le_bytes()).number(known.at.0);
    let content = content.position(known.reply.position);
    known.reply.sequences.iter().fold(content, |content, one| content.number(*one)).seal(key)
}

pub(crate) fn read_remembered(key: &[u8], value: &[u8]) -> Result<Remembered, Error> {
    let mut from = open(key, value)?;
    let digest = u128::from_le_bytes(from.take()?);
    let at = Timestamp(from.number()?);
    let position = from.position()?;
    let mut sequences = Vec::new();
    while !from.content.is_empty() {
        sequences.push(from.number()?);
    }
    Ok(Remembered { digest, at, reply: Committed { position, sequences } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_or_another_key_is_noticed() {
        let stored = Stored { value: "value".into(), revision: 3, expires: Some(Timestamp(9)) };
        let sealed = record(b"key", &stored);
        assert_eq!(read_record(b"key", &sealed).unwrap(), stored);
        let error = read_record(b"kez", &sealed).unwrap_err();
        assert!(matches!(error, Error::Corrupt { detail } if detail.contains("kez")));
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read_record(b"key", &damaged).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(read_record(b"key", &sealed[..len]).is_err(), "{len} bytes");
        }
    }
}
