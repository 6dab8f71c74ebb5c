//! A commit as the arguments of its script.

use crate::keys::{self, Keys};
use std::time::Duration;
use store::{
    Check, Commit, Error, Incarnation, Key, Partition, Position, StreamName, Write, bounds, rules,
};

/// The largest whole number that a script can count to: revisions and sequences stay below.
const COUNT_MAX: u64 = (1 << 53) - 1;

/// Keys and arguments of a script.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) args: Vec<Vec<u8>>,
}

impl Request {
    pub(crate) fn key(mut self, key: Vec<u8>) -> Self {
        self.keys.push(key);
        self
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<[u8]>) -> Self {
        self.push(arg);
        self
    }

    pub(crate) fn number(self, number: u64) -> Self {
        self.arg(number.to_string())
    }

    fn push(&mut self, arg: impl AsRef<[u8]>) {
        self.args.push(arg.as_ref().to_vec());
    }

    /// Bytes that it takes on the way.
    pub(crate) fn size(&self) -> usize {
        self.keys.iter().chain(&self.args).map(|part| part.len() + 16).sum()
    }

    /// The keys that every script of a partition begins with.
    pub(crate) fn of(keys: &Keys, partition: &Partition) -> Self {
        Self::default().key(keys.life(partition.bucket())).key(keys.partition(partition))
    }
}

/// What a script does with a commit that sweeps: it deletes only what has expired.
pub(crate) fn sweep(keys: &Keys, partition: &Partition, expired: &[Key]) -> Request {
    let commit = Commit::new(partition.clone());
    // A partition with an expiry exists, so no incarnation is asked for.
    let mut request = begin(keys, &commit, Incarnation(1));
    for key in expired {
        request.push("sweep");
        request.push(key.as_bytes());
    }
    request
}

/// What a script does with `commit`; `fresh` is the incarnation of a partition that is made.
///
/// # Errors
/// [`Error::TooLarge`].
pub(crate) fn commit(keys: &Keys, commit: &Commit, fresh: Incarnation) -> Result<Request, Error> {
    bounds::check(commit)?;
    let mut request = begin(keys, commit, fresh);
    // Fences are told before any other check.
    for check in &commit.checks {
        if let Check::Fence(epoch) = check {
            request.push("fence");
            request.push(fence(*epoch));
        }
    }
    for check in &commit.checks {
        match check {
            Check::Position(position) => {
                request.push("position");
                request.push(position.incarnation.0.to_string());
                request.push(position.revision.to_string());
            }
            Check::Incarnation(incarnation) => {
                request.push("incarnation");
                request.push(incarnation.0.to_string());
            }
            Check::Revision { key, revision } => {
                request.push("revision");
                request.push(key.as_bytes());
                request.push(revision.to_string());
            }
            Check::Absent { key } => {
                request.push("absent");
                request.push(key.as_bytes());
            }
            Check::Fence(_) => {}
        }
    }
    let mut streams: Vec<&StreamName> = Vec::new();
    for write in &commit.writes {
        push_write(&mut request, keys, &commit.partition, write, &mut streams)?;
    }
    Ok(request)
}

/// `commit` as `change.lua` does it; `None` if it is not of that form: one record without an
/// expiry, one entry of a stream, at most a revision of that record and an incarnation to check,
/// and no id.
pub(crate) fn change(keys: &Keys, commit: &Commit) -> Option<Request> {
    let [Write::Put { key, value, expires: None }, Write::Append { stream, value: entry }] =
        commit.writes.as_slice()
    else {
        return None;
    };
    let (mut life, mut held) = (String::new(), String::new());
    for check in &commit.checks {
        match check {
            Check::Incarnation(wanted) if life.is_empty() => life = wanted.0.to_string(),
            Check::Revision { key: of, revision } if of == key && held.is_empty() => {
                // Larger numbers would not be told apart there.
                held = (*revision <= COUNT_MAX).then(|| revision.to_string())?;
            }
            Check::Incarnation(_) | Check::Revision { .. } => return None,
            Check::Position(_) | Check::Absent { .. } | Check::Fence(_) => return None,
        }
    }
    if commit.id.is_some() {
        return None;
    }
    let partition = &commit.partition;
    let request = Request::of(keys, partition)
        .key(keys.records(partition))
        .key(keys.changes(partition))
        .key(keys.stream(partition, stream))
        .arg(keys::name(partition))
        .arg(keys.hints(partition.bucket()))
        .arg(life)
        .arg(key.as_bytes())
        .arg(held)
        .arg(value)
        .arg(format!("/{}", stream.as_str()))
        .arg(entry)
        .number(bounds::PARTITION_BYTES_MAX);
    Some(request)
}

fn begin(keys: &Keys, commit: &Commit, fresh: Incarnation) -> Request {
    let partition = &commit.partition;
    let bucket = partition.bucket();
    // Without an id its key is not used, but has to be one of the same slot.
    let id = commit.id.map_or_else(|| keys.life(bucket), |id| keys.commit_id(partition, id));
    let digest = commit.id.map_or_else(String::new, |_| format!("{:032x}", rules::digest(commit)));
    Request::of(keys, partition)
        .key(keys.records(partition))
        .key(keys.order(partition))
        .key(keys.changes(partition))
        .key(keys.deletions(partition))
        .key(keys.due(bucket))
        .key(keys.expiries(bucket))
        .key(keys.list(bucket))
        .key(id)
        .arg(keys::name(partition))
        .arg(keys::expiry_prefix(partition))
        .arg(keys.hints(bucket))
        .number(fresh.0)
        .arg(digest)
        .number(bounds::PARTITION_BYTES_MAX)
}

fn push_write<'a>(
    request: &mut Request,
    keys: &Keys,
    partition: &Partition,
    write: &'a Write,
    streams: &mut Vec<&'a StreamName>,
) -> Result<(), Error> {
    let mut place = |request: &mut Request, stream: &'a StreamName| {
        let known = streams.iter().position(|known| *known == stream);
        let at = known.unwrap_or_else(|| {
            streams.push(stream);
            request.keys.push(keys.stream(partition, stream));
            streams.len() - 1
        });
        // Scripts count from 1, and the streams follow the other keys.
        (request.keys.len() - streams.len() + at + 1).to_string()
    };
    match write {
        Write::Put { key, value, expires } => {
            request.push("put");
            request.push(key.as_bytes());
            request.push(value);
            request.push(expires.map_or_else(String::new, ms));
        }
        Write::Delete { key } => {
            request.push("delete");
            request.push(key.as_bytes());
        }
        Write::Append { stream, value } => {
            let place = place(request, stream);
            request.push("append");
            request.push(stream.as_str());
            request.push(place);
            request.push(value);
        }
        Write::Trim { stream, first } => {
            let place = place(request, stream);
            request.push("trim");
            request.push(stream.as_str());
            request.push(place);
            request.push(first.min(&COUNT_MAX).to_string());
        }
        Write::Wake(after) => {
            request.push("wake");
            request.push(after.map_or_else(String::new, ms));
        }
        Write::Begin { position, heads } => {
            let Position { incarnation, revision } = position;
            countable("a position's revision", *revision)?;
            request.push("begin");
            request.push(incarnation.0.to_string());
            request.push(revision.to_string());
            request.push(heads.len().to_string());
            for (stream, last) in heads {
                countable("the last sequence of a stream", *last)?;
                request.push(stream.as_str());
                request.push(last.to_string());
            }
        }
    }
    Ok(())
}

fn countable(what: &'static str, number: u64) -> Result<(), Error> {
    // Room for what is counted on top.
    let limit = COUNT_MAX / 2;
    if number <= limit { Ok(()) } else { Err(Error::TooLarge { what, actual: number, limit }) }
}

/// A fence as text that compares as the number does.
fn fence(epoch: u64) -> String {
    format!("{epoch:020}")
}

fn ms(duration: Duration) -> String {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(COUNT_MAX).to_string()
}
