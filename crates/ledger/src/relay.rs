//! Carries letters from outboxes to where they belong.
//!
//! The receiver keeps, for each sender, the incarnation and sequence of the last letter that it
//! took, and takes the next one in the same commit. So a relay that repeats itself, or that was
//! paused and goes on behind its successor, changes nothing.

use crate::{
    Lease, LeaseError, Letter, Owned, Work,
    outbox::{OUTBOX, UNDELIVERABLE},
};
use bytes::{BufMut, Bytes};
use std::time::Duration;
use store::{
    Check, Commit, Entry, Error, Head, Incarnation, Key, Partition, Position, SharedStore, Write,
};
use types::TenantId;

/// How long a receiver remembers a sender that sends no more. A letter that is still in its
/// outbox after so long may come twice.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);
/// Letters of one commit; their size is bounded too.
const BATCH: usize = 64;
const BATCH_BYTES_MAX: usize = 512 * 1024;
/// How often something is tried again that others changed meanwhile.
const TRIES: usize = 16;
/// The ledger's records in partitions of other layers begin with this byte, which no text has.
const OURS: u8 = 0xff;

/// Delivers for one store.
#[derive(Clone)]
pub struct Relay {
    store: SharedStore,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").finish_non_exhaustive()
    }
}

/// What a look at a partition came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Letters brought over, by this relay or by one before it.
    pub delivered: u64,
    /// Letters set aside, each with a reason.
    pub undeliverable: u64,
}

/// Letters for one receiver, in order.
struct Batch {
    to: Partition,
    first: u64,
    letters: Vec<Letter>,
}

impl Relay {
    /// A relay over `store`.
    #[must_use]
    pub fn new(store: SharedStore) -> Self {
        Self { store }
    }

    /// Looks at a partition that is due: empties its outbox, lets `work` do what is its own, and
    /// sets the next wake time.
    ///
    /// Cancel safe: what was not finished is due again.
    ///
    /// # Errors
    /// [`LeaseError::Lost`]; those of the store, after which the partition is still due.
    pub async fn serve(
        &self,
        lease: &Lease,
        partition: &Partition,
        work: Option<&dyn Work>,
    ) -> Result<Relayed, LeaseError> {
        let owned = lease.open(&self.store, partition).await?;
        let mut relayed = Relayed::default();
        for _ in 0..TRIES {
            let Some(head) = self.store.head(partition).await? else { break };
            if self.empty(&owned, &head, &mut relayed).await? {
                continue;
            }
            let next = match work {
                Some(work) => work.due(&owned).await?,
                None => None,
            };
            // Only if nothing has changed since the outbox was seen empty: whoever changed it
            // may have set an earlier wake time, or posted.
            let unchanged = Check::Position(head.position);
            match owned.commit(|commit| commit.check(unchanged).write(Write::Wake(next))).await {
                Err(LeaseError::Store(Error::Conflict { .. })) => {}
                answered => {
                    answered?;
                    break;
                }
            }
        }
        Ok(relayed)
    }

    /// Delivers a page of the outbox; false if there was nothing.
    async fn empty(
        &self,
        owned: &Owned<'_>,
        head: &Head,
        relayed: &mut Relayed,
    ) -> Result<bool, LeaseError> {
        let Some(span) = head.streams.iter().find(|stream| stream.stream == OUTBOX) else {
            return Ok(false);
        };
        if span.first > span.last {
            return Ok(false);
        }
        let entries = self.store.read(owned.partition(), &OUTBOX, span.first, BATCH).await?;
        for batch in batches(owned.partition(), entries) {
            match batch {
                Ok(batch) => {
                    let end = batch.first + batch.letters.len() as u64;
                    match self.deliver(owned.partition(), head.position.incarnation, &batch).await {
                        Ok(()) => {
                            relayed.delivered += batch.letters.len() as u64;
                            trim(owned, end).await?;
                        }
                        Err(error) if error.is_retryable() || is_contended(&error) => {
                            return Err(error.into());
                        }
                        Err(error) => {
                            let letters = batch.letters.iter().map(Letter::encode);
                            relayed.undeliverable += batch.letters.len() as u64;
                            set_aside(owned, letters, &error.to_string(), end).await?;
                        }
                    }
                }
                Err((entry, reason)) => {
                    relayed.undeliverable += 1;
                    set_aside(owned, [entry.value], reason, entry.sequence + 1).await?;
                }
            }
        }
        Ok(true)
    }

    /// Appends those letters that the receiver has not yet, and remembers that it has.
    async fn deliver(
        &self,
        from: &Partition,
        incarnation: Incarnation,
        batch: &Batch,
    ) -> Result<(), Error> {
        let memory = memory_key(from)?;
        for _ in 0..TRIES {
            let known = self.store.get(&batch.to, &memory).await?;
            let taken = match &known {
                Some(record) => taken(&record.value, incarnation)?,
                None => 0,
            };
            let skip = usize::try_from((taken + 1).saturating_sub(batch.first)).unwrap_or(BATCH);
            let letters = batch.letters.get(skip..).unwrap_or_default();
            if letters.is_empty() {
                return Ok(());
            }
            let check = match known {
                Some(record) => Check::Revision { key: memory.clone(), revision: record.revision },
                None => Check::Absent { key: memory.clone() },
            };
            let last = batch.first + batch.letters.len() as u64 - 1;
            let remember = Write::Put {
                key: memory.clone(),
                value: remembered(incarnation, last),
                expires: Some(REMEMBERED_FOR),
            };
            let commit = Commit::new(batch.to.clone()).check(check).write(remember);
            let commit = letters.iter().fold(commit, |commit, letter| {
                commit.append(letter.stream.clone(), letter.value.clone())
            });
            match self.store.commit(commit).await {
                // Another sender's letter, or ours by another relay: look again.
                Err(Error::Conflict { .. }) => {}
                answered => return answered.map(drop),
            }
        }
        Err(Error::Conflict { position: Position::ZERO, key: Some(memory) })
    }
}

fn is_contended(error: &Error) -> bool {
    matches!(error, Error::Conflict { .. })
}

/// Consecutive letters for one receiver go together. A letter that cannot be read, or that is
/// for another tenant, stands alone with the reason.
fn batches(from: &Partition, entries: Vec<Entry>) -> Vec<Result<Batch, (Entry, &'static str)>> {
    let mut batches: Vec<Result<Batch, (Entry, &'static str)>> = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        let Ok(letter) = Letter::decode(&entry.value) else {
            batches.push(Err((entry, "it cannot be read")));
            continue;
        };
        if !may_write(from.tenant(), letter.to.tenant()) {
            batches.push(Err((entry, "it is for another tenant")));
            continue;
        }
        bytes += letter.value.len();
        match batches.last_mut() {
            Some(Ok(batch)) if batch.to == letter.to && bytes <= BATCH_BYTES_MAX => {
                batch.letters.push(letter);
            }
            Some(_) | None => {
                bytes = letter.value.len();
                let to = letter.to.clone();
                batches.push(Ok(Batch { to, first: entry.sequence, letters: vec![letter] }));
            }
        }
    }
    batches
}

fn may_write(from: &TenantId, to: &TenantId) -> bool {
    from == to || *from == TenantId::system() || *to == TenantId::system()
}

async fn trim(owned: &Owned<'_>, first: u64) -> Result<(), LeaseError> {
    let trim = Write::Trim { stream: OUTBOX, first };
    owned.commit(|commit| commit.write(trim)).await.map(drop)
}

async fn set_aside(
    owned: &Owned<'_>,
    letters: impl IntoIterator<Item = Bytes>,
    reason: &str,
    first: u64,
) -> Result<(), LeaseError> {
    tracing::error!(partition = %owned.partition(), reason, "a letter cannot be delivered");
    let aside = letters.into_iter().map(|letter| {
        let mut bytes = Vec::with_capacity(4 + reason.len() + letter.len());
        bytes.put_u32(reason.len() as u32);
        bytes.put_slice(reason.as_bytes());
        bytes.put_slice(&letter);
        Bytes::from(bytes)
    });
    owned
        .commit(|commit| {
            aside
                .fold(commit, |commit, letter| commit.append(UNDELIVERABLE, letter))
                .write(Write::Trim { stream: OUTBOX, first })
        })
        .await
        .map(drop)
}

/// Under which a receiver remembers a sender.
fn memory_key(from: &Partition) -> Result<Key, Error> {
    let mut bytes = vec![OURS];
    for part in [from.tenant().as_str(), from.kind().as_str(), from.id()] {
        bytes.put_u16(part.len() as u16);
        bytes.put_slice(part.as_bytes());
    }
    Key::new(bytes)
}

fn remembered(incarnation: Incarnation, sequence: u64) -> Bytes {
    [incarnation.0.to_be_bytes(), sequence.to_be_bytes()].concat().into()
}

/// The last sequence taken from this life of a sender; its letters begin at 1 in each.
fn taken(bytes: &[u8], incarnation: Incarnation) -> Result<u64, Error> {
    let (life, sequence) = bytes.split_at_checked(8).ok_or_else(damaged)?;
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).map_err(|_| damaged());
    Ok(if number(life)? == incarnation.0 { number(sequence)? } else { 0 })
}

fn damaged() -> Error {
    Error::corrupt("what a receiver remembers of a sender cannot be read")
}
