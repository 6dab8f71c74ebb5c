//! Reading single records, by plain commands: the server runs them at a tenth of a script's
//! cost. Reads that come at the same time go together, and ask for the time once.
//!
//! A read sees the record and, beside it, the time of the partition's last commit; then the
//! time now. A record that has not expired by either was alive when it was read. One that has,
//! had expired before the read was answered.

use crate::{failure::Next, node::Node, nodes::Nodes, reply::HEADER};
use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{RedisError, Value as Raw};
use std::sync::Arc;
use store::{Bucket, Error};
use tokio::sync::{mpsc, oneshot};

/// Reads that wait to be sent; beyond, callers wait.
const WAITING_MAX: usize = 4096;
/// Reads that go together.
const TOGETHER_MAX: usize = 64;
/// What a read takes of the room for requests beside its names: a record comes back.
const REQUEST_BYTES: usize = 4096;

/// In whose place the time of the partition's last commit stands, once one of its records has
/// had an expiry; unless there is a record of that key.
const COMMITTED: &str = "";

/// A record that is to be read.
#[derive(Debug)]
pub(crate) struct Peek {
    pub(crate) bucket: Bucket,
    /// The name of the partition's records.
    pub(crate) records: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

/// What was seen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Peeked {
    Nothing,
    Record(Vec<u8>),
    /// The server did not answer as it should. The script finds out what is wrong.
    Unclear,
}

type Answer = Result<Peeked, Error>;
type Waiting = (Peek, oneshot::Sender<Answer>);

/// Takes reads.
#[derive(Debug)]
pub(crate) struct Peeker(mpsc::Sender<Waiting>);

impl Peeker {
    /// A peeker, and what [`run`] takes.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Waiting>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Reads one record.
    ///
    /// # Errors
    /// [`Error::Unavailable`], if there was no connection, or no answer in time.
    pub(crate) async fn peek(&self, peek: Peek) -> Answer {
        let closed = || Error::unavailable("the store is closed");
        let (sender, answer) = oneshot::channel();
        self.0.send((peek, sender)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

/// Sends what waits, for as long as it is polled.
pub(crate) async fn run(nodes: Arc<Nodes>, mut inbox: mpsc::Receiver<Waiting>) {
    let mut under_way = FuturesUnordered::new();
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            count = inbox.recv_many(&mut waiting, TOGETHER_MAX) => {
                if count == 0 {
                    return;
                }
                // Whoever was woken together gets to ask together.
                tokio::task::yield_now().await;
                while waiting.len() < TOGETHER_MAX
                    && let Ok(one) = inbox.try_recv()
                {
                    waiting.push(one);
                }
                for (node, some) in by_node(&nodes, waiting.drain(..)) {
                    under_way.push(ask(&nodes, node, some));
                }
            }
            Some(()) = under_way.next() => {}
        }
    }
}

/// Those of one server together; whom nobody serves is told so.
fn by_node(
    nodes: &Nodes,
    waiting: impl Iterator<Item = Waiting>,
) -> Vec<(Arc<Node>, Vec<Waiting>)> {
    let map = nodes.map();
    let mut groups: Vec<(Arc<Node>, Vec<Waiting>)> = Vec::new();
    for one in waiting {
        let Some(node) = map.node(one.0.bucket) else {
            let _ = one.1.send(Ok(Peeked::Unclear));
            continue;
        };
        match groups.iter_mut().find(|(of, _)| Arc::ptr_eq(of, node)) {
            Some((_, group)) => group.push(one),
            None => groups.push((node.clone(), vec![one])),
        }
    }
    groups
}

async fn ask(nodes: &Nodes, node: Arc<Node>, waiting: Vec<Waiting>) {
    let (link, error) = match node.link().await {
        Ok(link) => (Some(link), String::new()),
        Err(error) => (None, error.to_string()),
    };
    let Some(link) = link else {
        for (_, sender) in waiting {
            let _ = sender.send(Err(Error::unavailable(error.clone())));
        }
        return;
    };
    let size = |(peek, _): &Waiting| peek.records.len() + peek.key.len() + REQUEST_BYTES;
    // It is held until the answers are there. None: the node is gone, and so are they.
    let Ok(_room) = node.room(waiting.iter().map(size).sum()).await else { return };
    let mut request = redis::Pipeline::with_capacity(waiting.len() + 1);
    for (peek, _) in &waiting {
        request.cmd("HMGET").arg(&peek.records).arg(&peek.key).arg(COMMITTED);
    }
    let given = nodes.time();
    if given.is_empty() {
        request.cmd("TIME");
    }
    let answers: Result<Vec<Raw>, RedisError> = request.query_async(&mut link.connection()).await;
    match answers {
        Ok(mut answers) => {
            let now = if given.is_empty() {
                answers.pop().and_then(|time| milliseconds(&time))
            } else {
                given.parse().ok()
            };
            let mut answers = answers.into_iter();
            for (_, sender) in waiting {
                let seen = seen(answers.next(), now);
                let _ = sender.send(Ok(seen.unwrap_or(Peeked::Unclear)));
            }
        }
        Err(error) => {
            if Next::after(&error) == Next::Lost {
                node.lose(&link);
            }
            for (_, sender) in waiting {
                let late = || Err(Error::unavailable(error.to_string()));
                let _ = sender.send(if error.is_timeout() { late() } else { Ok(Peeked::Unclear) });
            }
        }
    }
}

/// By the record with the time of the last commit, and the time now. `None` for answers of
/// another form, and where that time is not known.
fn seen(answer: Option<Raw>, now: Option<u64>) -> Option<Peeked> {
    let Raw::Array(parts) = answer? else { return None };
    let [record, committed] = <[Raw; 2]>::try_from(parts).ok()?;
    if record == Raw::Nil {
        return Some(Peeked::Nothing);
    }
    let Raw::BulkString(raw) = record else { return None };
    let (header, _) = raw.split_first_chunk::<HEADER>()?;
    let (_, expires) = header.split_last_chunk()?;
    let expires = u64::from_be_bytes(*expires);
    let is_live = expires == 0 || binary(&committed)?.max(now?) < expires;
    Some(if is_live { Peeked::Record(raw) } else { Peeked::Nothing })
}

/// Seconds and microseconds.
fn milliseconds(time: &Raw) -> Option<u64> {
    let Raw::Array(parts) = time else { return None };
    let [seconds, micros] = parts.as_slice() else { return None };
    Some(number(seconds)? * 1000 + number(micros)? / 1000)
}

fn binary(raw: &Raw) -> Option<u64> {
    let Raw::BulkString(bytes) = raw else { return None };
    Some(u64::from_be_bytes(bytes.as_slice().try_into().ok()?))
}

fn number(raw: &Raw) -> Option<u64> {
    let Raw::BulkString(text) = raw else { return None };
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(expires: u64) -> Vec<u8> {
        [&7_u64.to_be_bytes()[..], &expires.to_be_bytes(), b"value"].concat()
    }

    fn text(text: &str) -> Raw {
        Raw::BulkString(text.into())
    }

    fn time(time: u64) -> Raw {
        Raw::BulkString(time.to_be_bytes().into())
    }

    fn both(record: Raw, committed: Raw) -> Option<Raw> {
        Some(Raw::Array(vec![record, committed]))
    }

    #[test]
    fn a_record_is_alive_until_its_expiry_by_both_times() {
        let of = |expires, committed: u64, now| {
            seen(both(Raw::BulkString(raw(expires)), time(committed)), Some(now))
        };
        let alive = |expires| Some(Peeked::Record(raw(expires)));
        assert_eq!(of(0, 9000, 9_000), alive(0));
        assert_eq!(of(2_001, 1000, 2_000), alive(2_001));
        assert_eq!(of(2_001, 1000, 2_001), Some(Peeked::Nothing));
        assert_eq!(of(3_000, 3000, 0), Some(Peeked::Nothing));
        assert_eq!(seen(both(Raw::Nil, Raw::Nil), None), Some(Peeked::Nothing));
    }

    #[test]
    fn an_answer_of_another_form_is_unclear() {
        let record = || Raw::BulkString(raw(9));
        assert_eq!(seen(both(record(), text("x")), Some(1)), None);
        assert_eq!(seen(both(record(), time(1)), None), None);
        assert_eq!(seen(both(record(), record()), Some(1)), None, "the empty key is a record");
        assert_eq!(seen(both(record(), Raw::Nil), Some(1)), None, "written by an older version");
        assert_eq!(seen(both(text("short"), time(1)), Some(1)), None);
        assert_eq!(seen(both(Raw::Int(1), time(1)), Some(1)), None);
        assert_eq!(seen(Some(record()), Some(1)), None);
        assert_eq!(milliseconds(&Raw::Array(vec![text("2"), text("1999")])), Some(2_001));
        assert_eq!(milliseconds(&text("2")), None);
    }
}
