//! What scripts answer.

use bytes::Bytes;
use redis::Value as Raw;
use store::{
    Change, Committed, Entry, Error, Head, Incarnation, Key, Position, Record, StreamHead,
    StreamName, bounds,
};

/// Bytes in front of a record's value: its revision and its expiry.
pub(crate) const HEADER: usize = 16;

/// The parts of an answer, taken from the front.
#[derive(Debug)]
pub(crate) struct Reply(std::vec::IntoIter<Raw>);

fn unexpected(what: &str) -> Error {
    Error::corrupt(format!("a script answered {what}"))
}

impl Reply {
    pub(crate) fn new(value: Raw) -> Result<Self, Error> {
        let Raw::Array(parts) = value else { return Err(unexpected("no list")) };
        Ok(Self(parts.into_iter()))
    }

    /// The first part, which says what the others are.
    pub(crate) fn status(&mut self) -> Result<String, Error> {
        self.text()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, Error> {
        let Some(Raw::BulkString(bytes)) = self.0.next() else { return Err(unexpected("no text")) };
        Ok(bytes)
    }

    pub(crate) fn text(&mut self) -> Result<String, Error> {
        String::from_utf8(self.bytes()?).map_err(|_| unexpected("no text"))
    }

    pub(crate) fn number(&mut self) -> Result<u64, Error> {
        let text = self.text()?;
        text.parse().map_err(|_| unexpected(&format!("no number: {text}")))
    }

    pub(crate) fn list(&mut self) -> Result<Self, Error> {
        Self::new(self.0.next().unwrap_or(Raw::Nil))
    }

    pub(crate) fn position(&mut self) -> Result<Position, Error> {
        Ok(Position { incarnation: Incarnation(self.number()?), revision: self.number()? })
    }

    pub(crate) fn key(&mut self) -> Result<Key, Error> {
        Key::new(self.bytes()?)
    }

    pub(crate) fn record(&mut self) -> Result<Record, Error> {
        record(self.bytes()?)
    }

    pub(crate) fn entry(&mut self) -> Result<Entry, Error> {
        let (sequence, revision) = (self.number()?, self.number()?);
        Ok(Entry { sequence, revision, value: self.bytes()?.into() })
    }

    pub(crate) fn change(&mut self) -> Result<Change, Error> {
        let (key, revision, raw) = (self.key()?, self.number()?, self.bytes()?);
        let value = if raw.is_empty() { None } else { Some(record(raw)?.value) };
        Ok(Change { key, revision, value })
    }

    /// Stream heads, by name.
    pub(crate) fn streams(&mut self) -> Result<Vec<StreamHead>, Error> {
        let mut told = self.list()?;
        let mut streams = Vec::new();
        while !told.is_empty() {
            let stream = StreamName::parse(&told.text()?)?;
            streams.push(StreamHead { stream, first: told.number()?, last: told.number()? });
        }
        streams.sort_unstable_by(|a, b| a.stream.cmp(&b.stream));
        Ok(streams)
    }

    pub(crate) fn head(&mut self) -> Result<Head, Error> {
        let (position, fence) = (self.position()?, self.number()?);
        Ok(Head { position, fence, streams: self.streams()? })
    }

    pub(crate) fn committed(&mut self) -> Result<Committed, Error> {
        let position = self.position()?;
        let mut sequences = Vec::new();
        while !self.is_empty() {
            sequences.push(self.number()?);
        }
        Ok(Committed { position, sequences })
    }

    /// The error that `status` stands for.
    pub(crate) fn error(&mut self, status: &str) -> Error {
        let error = match status {
            "conflict" => self.position().and_then(|position| {
                let key = if self.is_empty() { None } else { Some(self.key()?) };
                Ok(Error::Conflict { position, key })
            }),
            "fenced" => self.number().map(|stored| Error::Fenced { stored }),
            "reused" => Ok(Error::IdReused),
            "lagged" => self.position().map(|position| Error::Lagged { position }),
            "trimmed" => self.number().map(|first| Error::Trimmed { first }),
            "large" => self.number().map(|actual| {
                let limit = bounds::PARTITION_BYTES_MAX;
                Error::TooLarge { what: "the records of a partition", actual, limit }
            }),
            "corrupt" => self.text().map(Error::corrupt),
            other => Ok(unexpected(&format!("`{other}`"))),
        };
        error.unwrap_or_else(|error| error)
    }
}

pub(crate) fn record(raw: Vec<u8>) -> Result<Record, Error> {
    let (revision, _) = raw.split_first_chunk().ok_or_else(|| unexpected("a short record"))?;
    let revision = u64::from_be_bytes(*revision);
    if raw.len() < HEADER {
        return Err(unexpected("a short record"));
    }
    Ok(Record { revision, value: Bytes::from(raw).slice(HEADER..) })
}
