//! Names of things in a store.

use crate::{Error, bounds};
use std::{borrow::Cow, fmt, sync::Arc};
use types::TenantId;

/// Number of buckets that partitions fall into: hash tags, sweeping, and (mod 64) ownership.
pub const BUCKETS: u16 = 1024;

/// One of the [`BUCKETS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket(pub u16);

impl Bucket {
    /// Every bucket.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..BUCKETS).map(Self)
    }
}

/// What a partition is for, for instance `session`. Chosen by the layer, never by a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(Cow<'static, str>);

impl Kind {
    /// A layer's own kind.
    ///
    /// # Panics
    /// At compile time, if used in a `const`, unless it is 1 to 32 of a-z, 0-9 and `-`.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        assert!(Self::is_valid(name.as_bytes()), "a kind is 1 to 32 of a-z, 0-9 and -");
        Self(Cow::Borrowed(name))
    }

    /// A kind as an engine stored it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it never was a kind.
    pub fn parse(name: &str) -> Result<Self, Error> {
        if Self::is_valid(name.as_bytes()) {
            Ok(Self(Cow::Owned(name.to_owned())))
        } else {
            Err(Error::corrupt(format!("`{name}` is not a kind")))
        }
    }

    const fn is_valid(name: &[u8]) -> bool {
        let mut at = 0;
        while at < name.len() {
            if !matches!(name[at], b'a'..=b'z' | b'0'..=b'9' | b'-') {
                return false;
            }
            at += 1;
        }
        !name.is_empty() && name.len() <= 32
    }

    /// The kind as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A partition: the unit of order and of commits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    tenant: TenantId,
    kind: Kind,
    id: Arc<str>,
}

impl Partition {
    /// The partition `id` of `kind` in `tenant`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the id is longer than [`bounds::ID_BYTES_MAX`].
    pub fn new(tenant: TenantId, kind: Kind, id: &str) -> Result<Self, Error> {
        if id.len() > bounds::ID_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "a partition's id",
                actual: id.len() as u64,
                limit: bounds::ID_BYTES_MAX as u64,
            });
        }
        Ok(Self { tenant, kind, id: id.into() })
    }

    /// Who owns it.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Its name within tenant and kind.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it falls. Stable for ever: engines store by it.
    #[must_use]
    pub fn bucket(&self) -> Bucket {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for part in [self.tenant.as_str(), self.kind.as_str(), &self.id] {
            hash.update(&(part.len() as u32).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Bucket((hash.digest() % u64::from(BUCKETS)) as u16)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.kind.as_str(), self.id)
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of a record within its partition; ordered by its bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// A key.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond [`bounds::KEY_BYTES_MAX`].
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, Error> {
        let bytes = bytes.as_ref();
        if bytes.len() > bounds::KEY_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "a key",
                actual: bytes.len() as u64,
                limit: bounds::KEY_BYTES_MAX as u64,
            });
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0.escape_ascii())
    }
}

/// The name of a stream within its partition: a layer's own, like a kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(Kind);

impl StreamName {
    /// A layer's own stream.
    ///
    /// # Panics
    /// As [`Kind::new`].
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(Kind::new(name))
    }

    /// A stream as an engine stored it.
    ///
    /// # Errors
    /// As [`Kind::parse`].
    pub fn parse(name: &str) -> Result<Self, Error> {
        Kind::parse(name).map(Self)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// A life of a partition. A new one starts at creation and wherever the tail may have been
/// lost, so that nobody resumes over a gap. Never zero; of two, neither is "later".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation(pub u64);

/// A point in the life of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which life.
    pub incarnation: Incarnation,
    /// The number of commits in it.
    pub revision: u64,
}

impl Position {
    /// Before the first commit; as a check, it demands that the partition does not exist.
    pub const ZERO: Self = Self { incarnation: Incarnation(0), revision: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_never_move() {
        let of =
            |id| Partition::new(TenantId::new("t").unwrap(), Kind::new("k"), id).unwrap().bucket();
        // Recorded from the first version; engines store by them.
        assert_eq!([of("a"), of("b"), of("")], [Bucket(469), Bucket(358), Bucket(677)]);
    }
}
