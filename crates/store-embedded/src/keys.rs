//! Keys on disk. The first byte says what; names carry their length in front, so that no
//! partition's keys are a prefix of another's. Numbers are big endian, to sort.
//!
//! | key | value |
//! |---|---|
//! | `M` partition | its meta |
//! | `R` partition key | a record |
//! | `S` partition stream sequence | an entry |
//! | `C` partition revision key | the latest change of the key; when, if a deletion |
//! | `D` partition key | revision of a known deletion |
//! | `I` partition id | the reply to a commit |
//! | `L` tenant kind id | listed |
//! | `W` bucket time partition | due |
//! | `E` bucket time partition key | expires |
//! | `G` time key | what of it to forget then |
//! | `T` | the latest store time |
//! | `V` | the format's version |

use store::{Bucket, CommitId, Error, Key, Kind, Partition, StreamName};
use types::{TenantId, Timestamp};

pub(crate) const TIME: &[u8] = b"T";
pub(crate) const VERSION: &[u8] = b"V";

fn named(key: &mut Vec<u8>, name: &[u8]) {
    // Tenants, kinds and streams are at most 64 bytes long.
    key.push(name.len() as u8);
    key.extend_from_slice(name);
}

fn place(what: u8, partition: &Partition) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.push(what);
    push_partition(&mut key, partition);
    key
}

fn push_partition(key: &mut Vec<u8>, partition: &Partition) {
    named(key, partition.tenant().as_str().as_bytes());
    named(key, partition.kind().as_str().as_bytes());
    key.extend_from_slice(&(partition.id().len() as u16).to_be_bytes());
    key.extend_from_slice(partition.id().as_bytes());
}

pub(crate) fn meta(partition: &Partition) -> Vec<u8> {
    place(b'M', partition)
}

pub(crate) fn record(partition: &Partition, key: &[u8]) -> Vec<u8> {
    let mut place = place(b'R', partition);
    place.extend_from_slice(key);
    place
}

pub(crate) fn stream(partition: &Partition, stream: &StreamName) -> Vec<u8> {
    let mut place = place(b'S', partition);
    named(&mut place, stream.as_str().as_bytes());
    place
}

pub(crate) fn entry(partition: &Partition, name: &StreamName, sequence: u64) -> Vec<u8> {
    let mut place = stream(partition, name);
    place.extend_from_slice(&sequence.to_be_bytes());
    place
}

pub(crate) fn changes(partition: &Partition) -> Vec<u8> {
    place(b'C', partition)
}

pub(crate) fn change(partition: &Partition, revision: u64, key: &[u8]) -> Vec<u8> {
    let mut place = changes(partition);
    place.extend_from_slice(&revision.to_be_bytes());
    place.extend_from_slice(key);
    place
}

pub(crate) fn deletion(partition: &Partition, key: &Key) -> Vec<u8> {
    let mut place = place(b'D', partition);
    place.extend_from_slice(key.as_bytes());
    place
}

pub(crate) fn commit_id(partition: &Partition, id: CommitId) -> Vec<u8> {
    let mut place = place(b'I', partition);
    place.extend_from_slice(&id.0);
    place
}

pub(crate) fn listed(tenant: &TenantId, kind: &Kind, id: &str) -> Vec<u8> {
    let mut place = vec![b'L'];
    named(&mut place, tenant.as_str().as_bytes());
    named(&mut place, kind.as_str().as_bytes());
    place.extend_from_slice(id.as_bytes());
    place
}

/// Everything of `what` (`W` or `E`) in `bucket`.
pub(crate) fn timed(what: u8, bucket: Bucket) -> Vec<u8> {
    let mut place = vec![what];
    place.extend_from_slice(&bucket.0.to_be_bytes());
    place
}

fn timed_at(what: u8, partition: &Partition, at: Timestamp) -> Vec<u8> {
    let mut place = timed(what, partition.bucket());
    place.extend_from_slice(&at.0.to_be_bytes());
    push_partition(&mut place, partition);
    place
}

pub(crate) fn wake(partition: &Partition, at: Timestamp) -> Vec<u8> {
    timed_at(b'W', partition, at)
}

pub(crate) fn expiry(partition: &Partition, at: Timestamp, key: &Key) -> Vec<u8> {
    let mut place = timed_at(b'E', partition, at);
    place.extend_from_slice(key.as_bytes());
    place
}

/// The time, the partition and what follows, of a key made by [`wake`] or [`expiry`].
pub(crate) fn parse_timed(key: &[u8]) -> Result<(Timestamp, Partition, &[u8]), Error> {
    let wrong = || Error::corrupt(format!("index entry `{}`", key.escape_ascii()));
    let (at, rest) = key.get(3..).and_then(<[u8]>::split_first_chunk).ok_or_else(wrong)?;
    let (partition, rest) = parse_partition(rest).ok_or_else(wrong)?;
    Ok((Timestamp(u64::from_be_bytes(*at)), partition, rest))
}

fn parse_partition(bytes: &[u8]) -> Option<(Partition, &[u8])> {
    let (tenant, bytes) = parse_named(bytes)?;
    let (kind, bytes) = parse_named(bytes)?;
    let (len, bytes) = bytes.split_first_chunk()?;
    let (id, rest) = bytes.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    let system = TenantId::system();
    let tenant = if tenant == system.as_str() { system } else { TenantId::new(tenant).ok()? };
    let id = std::str::from_utf8(id).ok()?;
    Some((Partition::new(tenant, Kind::parse(kind).ok()?, id).ok()?, rest))
}

fn parse_named(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, bytes) = bytes.split_first()?;
    let (name, rest) = bytes.split_at_checked(usize::from(*len))?;
    Some((std::str::from_utf8(name).ok()?, rest))
}

/// To forget `what` at `at`.
pub(crate) fn forget(at: Timestamp, what: &[u8]) -> Vec<u8> {
    let mut place = vec![b'G'];
    place.extend_from_slice(&at.0.to_be_bytes());
    place.extend_from_slice(what);
    place
}

/// What follows the time of a key made by [`forget`].
pub(crate) fn forgotten(key: &[u8]) -> &[u8] {
    key.get(9..).unwrap_or_default()
}

/// The partition and what follows of a key that starts with a partition.
pub(crate) fn parse_place(key: &[u8]) -> Result<(Partition, &[u8]), Error> {
    key.get(1..)
        .and_then(parse_partition)
        .ok_or_else(|| Error::corrupt(format!("key `{}`", key.escape_ascii())))
}

/// The first key after all that start with `prefix`.
pub(crate) fn after(mut prefix: Vec<u8>) -> Vec<u8> {
    // A prefix starts with a letter, so the loop ends before it is empty.
    while let Some(last) = prefix.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            break;
        }
        prefix.pop();
    }
    prefix
}
