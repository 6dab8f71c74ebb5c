//! Names of keys. No two partitions, records or streams share one: what is not last in a name
//! has its length in front.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `life` | string | which server process goes on with the bucket's data, and its life |
//! | `due` | sorted set | wake times of partitions |
//! | `expiries` | sorted set | expiries of records |
//! | `list` | sorted set | every partition, in the order of its name |
//! | `m:` partition | hash | the partition without its contents |
//! | `r:` partition | hash | records: revision, expiry, value |
//! | `k:` partition | sorted set | keys in their order |
//! | `c:` partition | sorted set | keys by the revision of their latest change |
//! | `d:` partition | sorted set | known deletions by their time |
//! | `s:` stream partition | stream | entries; an entry's id is sequence and revision |
//! | `i:` id partition | string | the reply to a commit, for ten minutes |
//!
//! Each follows the prefix and the bucket as the hash tag: `{b0469}`; so whatever one commit
//! touches lies in one slot of a cluster.

use store::{Bucket, CommitId, Error, Key, Kind, Partition, StreamName};
use types::TenantId;

/// Makes names of keys.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    /// `prefix` holds no brace, which would be taken for a hash tag.
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    fn of(&self, bucket: Bucket, what: &str) -> Vec<u8> {
        // Room for what usually follows; no formatting machinery, since it is done so often.
        let mut key = Vec::with_capacity(self.prefix.len() + what.len() + 96);
        key.extend_from_slice(self.prefix.as_bytes());
        key.extend_from_slice(b"{b");
        let digits = [1000, 100, 10, 1].map(|unit| b'0' + (bucket.0 / unit % 10) as u8);
        key.extend_from_slice(&digits);
        key.push(b'}');
        key.extend_from_slice(what.as_bytes());
        key
    }

    fn at(&self, what: &str, partition: &Partition) -> Vec<u8> {
        let mut key = self.of(partition.bucket(), what);
        key.extend_from_slice(&name(partition));
        key
    }

    pub(crate) fn life(&self, bucket: Bucket) -> Vec<u8> {
        self.of(bucket, "life")
    }

    pub(crate) fn due(&self, bucket: Bucket) -> Vec<u8> {
        self.of(bucket, "due")
    }

    pub(crate) fn expiries(&self, bucket: Bucket) -> Vec<u8> {
        self.of(bucket, "expiries")
    }

    pub(crate) fn list(&self, bucket: Bucket) -> Vec<u8> {
        self.of(bucket, "list")
    }

    pub(crate) fn partition(&self, partition: &Partition) -> Vec<u8> {
        self.at("m:", partition)
    }

    pub(crate) fn records(&self, partition: &Partition) -> Vec<u8> {
        self.at("r:", partition)
    }

    pub(crate) fn order(&self, partition: &Partition) -> Vec<u8> {
        self.at("k:", partition)
    }

    pub(crate) fn changes(&self, partition: &Partition) -> Vec<u8> {
        self.at("c:", partition)
    }

    pub(crate) fn deletions(&self, partition: &Partition) -> Vec<u8> {
        self.at("d:", partition)
    }

    pub(crate) fn stream(&self, partition: &Partition, stream: &StreamName) -> Vec<u8> {
        let mut key = self.of(partition.bucket(), "s:");
        push_named(&mut key, stream.as_str());
        key.extend_from_slice(&name(partition));
        key
    }

    pub(crate) fn commit_id(&self, partition: &Partition, id: CommitId) -> Vec<u8> {
        let mut key = self.of(partition.bucket(), "i:");
        key.extend_from_slice(&id.0);
        key.extend_from_slice(&name(partition));
        key
    }

    /// The channel of hints about a bucket's partitions.
    pub(crate) fn hints(&self, bucket: Bucket) -> Vec<u8> {
        self.of(bucket, "hints")
    }

    /// The channel of a topic.
    pub(crate) fn topic(&self, bucket: Bucket, topic: &[u8]) -> Vec<u8> {
        let mut channel = self.of(bucket, "t:");
        channel.extend_from_slice(topic);
        channel
    }

    /// The bucket of a channel that was made here.
    pub(crate) fn bucket_of_channel(&self, channel: &[u8]) -> Option<Bucket> {
        let tag = channel.strip_prefix(self.prefix.as_bytes())?.strip_prefix(b"{b")?;
        std::str::from_utf8(tag.get(..4)?).ok()?.parse().ok().map(Bucket)
    }

    /// What follows the bucket in the channel of a topic.
    pub(crate) fn topic_of_channel<'a>(&self, channel: &'a [u8]) -> Option<&'a [u8]> {
        // `{b0469}t:`
        channel.strip_prefix(self.prefix.as_bytes())?.get(9..)
    }
}

fn push_named(key: &mut Vec<u8>, name: &str) {
    // Tenants, kinds and streams are at most 64 bytes long.
    key.push(name.len() as u8);
    key.extend_from_slice(name.as_bytes());
}

/// A partition's name within an index; in the order of ids, if tenant and kind are the same.
pub(crate) fn name(partition: &Partition) -> Vec<u8> {
    let mut name = kind_prefix(partition.tenant(), partition.kind());
    name.extend_from_slice(partition.id().as_bytes());
    name
}

/// What the names of the partitions of a tenant and kind start with.
pub(crate) fn kind_prefix(tenant: &TenantId, kind: &Kind) -> Vec<u8> {
    let mut name = Vec::with_capacity(64);
    push_named(&mut name, tenant.as_str());
    push_named(&mut name, kind.as_str());
    name
}

/// A partition by its [`name`].
pub(crate) fn parse_name(name: &[u8]) -> Result<Partition, Error> {
    fn named(bytes: &[u8]) -> Option<(&str, &[u8])> {
        let (len, bytes) = bytes.split_first()?;
        let (name, rest) = bytes.split_at_checked(usize::from(*len))?;
        Some((std::str::from_utf8(name).ok()?, rest))
    }
    let parsed = || {
        let (tenant, rest) = named(name)?;
        let (kind, id) = named(rest)?;
        let system = TenantId::system();
        let tenant = if tenant == system.as_str() { system } else { TenantId::new(tenant).ok()? };
        Partition::new(tenant, Kind::parse(kind).ok()?, std::str::from_utf8(id).ok()?).ok()
    };
    parsed().ok_or_else(|| Error::corrupt(format!("a partition named `{}`", name.escape_ascii())))
}

/// What the names of a partition's records within the index of expiries start with.
pub(crate) fn expiry_prefix(partition: &Partition) -> Vec<u8> {
    let name = name(partition);
    let mut prefix = (name.len() as u16).to_be_bytes().to_vec();
    prefix.extend_from_slice(&name);
    prefix
}

/// A partition and key by their name within the index of expiries.
pub(crate) fn parse_expiry(name: &[u8]) -> Result<(Partition, Key), Error> {
    let wrong = || Error::corrupt(format!("an expiry named `{}`", name.escape_ascii()));
    let (len, rest) = name.split_first_chunk().ok_or_else(wrong)?;
    let split = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)));
    let (partition, key) = split.ok_or_else(wrong)?;
    Ok((parse_name(partition)?, Key::new(key)?))
}

/// The first text after all that start with `prefix`, if there is one.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return Some(next);
        }
        next.pop();
    }
    None
}
