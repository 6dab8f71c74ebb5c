//! What a partition has to tell others.
//!
//! A layer that changes a partition, and owes another partition an entry for it, appends the
//! entry to its own outbox in the same commit: both happen or neither does. The relay brings it
//! over later.

use bytes::{BufMut, Bytes};
use std::time::Duration;
use store::{Commit, Error, Kind, Partition, StreamName, Write};
use types::TenantId;

/// The stream that holds letters until they are delivered.
pub const OUTBOX: StreamName = StreamName::new("outbox");
/// The stream that holds letters that could not be delivered, each behind its reason.
pub const UNDELIVERABLE: StreamName = StreamName::new("outbox-undeliverable");

const VERSION: u8 = 1;

/// An entry for a stream of another partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Whom it is for.
    pub to: Partition,
    /// Which of its streams.
    pub stream: StreamName,
    /// The entry.
    pub value: Bytes,
}

/// Adds `letters` to a commit of the partition that sends them, and wakes the relay.
///
/// Sets the partition's wake time, as the relay does when it is done: a layer that uses wake
/// times of its own tells the relay by [`crate::Work::due`] when it wants to be woken.
#[must_use]
pub fn post(commit: Commit, letters: impl IntoIterator<Item = Letter>) -> Commit {
    let commit =
        letters.into_iter().fold(commit, |commit, letter| commit.append(OUTBOX, letter.encode()));
    commit.write(Write::Wake(Some(Duration::ZERO)))
}

impl Letter {
    /// A version byte; tenant, kind, id and stream, each behind its length in four bytes, big
    /// end first; the entry.
    pub(crate) fn encode(&self) -> Bytes {
        let parts = [
            self.to.tenant().as_str(),
            self.to.kind().as_str(),
            self.to.id(),
            self.stream.as_str(),
        ];
        let names: usize = parts.iter().map(|part| part.len() + 4).sum();
        let mut bytes = Vec::with_capacity(1 + names + self.value.len());
        bytes.put_u8(VERSION);
        for part in parts {
            // Names are bounded far below four gigabytes.
            bytes.put_u32(part.len() as u32);
            bytes.put_slice(part.as_bytes());
        }
        bytes.put_slice(&self.value);
        bytes.into()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, Error> {
        let damaged = || Error::corrupt("a letter in an outbox cannot be read");
        let mut at = 1;
        if bytes.first() != Some(&VERSION) {
            return Err(damaged());
        }
        let mut next = || -> Result<&str, Error> {
            let head = bytes.get(at..at + 4).and_then(|head| head.try_into().ok());
            let length = u32::from_be_bytes(head.ok_or_else(damaged)?) as usize;
            at += 4;
            let end = at.checked_add(length).ok_or_else(damaged)?;
            let part = bytes.get(at..end).and_then(|part| std::str::from_utf8(part).ok());
            at = end;
            part.ok_or_else(damaged)
        };
        let (tenant, kind, id, stream) = (next()?, next()?, next()?, next()?);
        let system = TenantId::system();
        let tenant = if tenant == system.as_str() {
            system
        } else {
            TenantId::new(tenant).map_err(|_| damaged())?
        };
        let to = Partition::new(tenant, Kind::parse(kind)?, id)?;
        let stream = StreamName::parse(stream)?;
        Ok(Self { to, stream, value: bytes.slice(at..) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_come_back_as_they_were() {
        for (tenant, id, value) in [
            (TenantId::new("acme").unwrap(), "", &b""[..]),
            (TenantId::system(), "a\0b/ü", b"\0\xff"),
        ] {
            let to = Partition::new(tenant, Kind::new("topic"), id).unwrap();
            let letter =
                Letter { to, stream: StreamName::new("lane"), value: Bytes::from_static(value) };
            let bytes = letter.encode();
            assert_eq!(Letter::decode(&bytes).unwrap(), letter);
            let head = bytes.len() - value.len();
            for cut in 0..head {
                assert!(Letter::decode(&bytes.slice(..cut)).is_err(), "cut at {cut}");
            }
        }
    }
}
