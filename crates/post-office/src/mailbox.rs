//! Mailboxes: letters that wait until they are acknowledged.
//!
//! A letter is sent once for its sender's name for it, is durable before that is answered, and
//! waits in the order of its sending. Whoever reads it acknowledges it, which takes it out, or
//! gives it back, after which it comes again until that is too often. What expires, or is given
//! back too often, is a dead letter: it can be looked at, and sent again.
//!
//! Everything about a mailbox lies in one partition, and each change of it is one commit.

mod address;
mod letter;

pub use address::Address;
pub use letter::{Dead, Letter, Refused};

use crate::mailbox::letter::{DEAD, Register, key, name, named, read, register, sent_as, write};
use clock::SharedClock;
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::time::Duration;
use store::{Check, Commit, Key, Partition, Record, SharedStore, Write};
use traffic_cop::{
    genesis::Genesis,
    session::{Trail, What},
    state::{self, BEFORE_ENTRIES, CHANGES},
    store_problem,
};
use types::{Caller, PrincipalId, PrincipalKind};

const ATTEMPTS: usize = 32;
/// Changes that a client can have missed and still resume over.
const CHANGES_KEPT: u64 = 1_000;
/// The stream is trimmed each time that so many changes have come.
const TRIM_EVERY: u64 = 64;
/// Letters that one answer holds.
const PAGE: usize = 100;
const ID_BYTES_MAX: usize = 128;
const WHY_BYTES_MAX: usize = 512;

/// Bounds of mailboxes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Letters that may wait in one, 1 to 100000; one more is refused with 503 `overloaded`.
    pub letters_max: u64,
    /// Dead letters of one, 1 to 100000; the oldest gives way.
    pub dead_max: u64,
    /// Bytes of a letter's data, as JSON; at most 131072.
    pub letter_bytes_max: usize,
    /// How often a letter may be given back before it is dead, 1 to 100.
    pub refusals_max: u32,
    /// How long a sender's name for a letter is remembered, 1m to 30d.
    #[serde(with = "types::duration")]
    pub ids_for: Duration,
    /// Whether users send letters to others; else only services, agents and admins do.
    pub users_send: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            letters_max: 1_000,
            dead_max: 1_000,
            letter_bytes_max: 64 * 1024,
            refusals_max: 5,
            ids_for: Duration::from_secs(24 * 3600),
            users_send: false,
        }
    }
}

impl Config {
    /// Refuses impossible values.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        for (name, count) in [("letters_max", self.letters_max), ("dead_max", self.dead_max)] {
            if !(1..=100_000).contains(&count) {
                return Err(format!("`mailboxes.{name}` must be 1 to 100000"));
            }
        }
        if !(1..=131_072).contains(&self.letter_bytes_max) {
            return Err("`mailboxes.letter_bytes_max` must be 1 to 131072".into());
        }
        if !(1..=100).contains(&self.refusals_max) {
            return Err("`mailboxes.refusals_max` must be 1 to 100".into());
        }
        let (least, most) = (Duration::from_secs(60), Duration::from_secs(30 * 24 * 3600));
        if !(least..=most).contains(&self.ids_for) {
            return Err("`mailboxes.ids_for` must be 1m to 30d".into());
        }
        Ok(())
    }
}

/// A letter to be sent.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLetter {
    /// The sender's name for it: sent again by the same name, it is not sent twice. Made up, if
    /// it is missing.
    #[serde(default)]
    pub id: Option<String>,
    /// What it says.
    pub data: Json,
    /// How long it is of use, unless for ever.
    #[serde(default, deserialize_with = "types::duration::optional")]
    #[schemars(with = "Option<types::duration::Text>")]
    pub ttl: Option<Duration>,
}

/// A letter that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "SentLetter")]
pub struct Sent {
    /// Its name in the mailbox.
    pub letter: String,
    /// The sender's name for it.
    pub id: String,
    /// Whether it had been sent before by that name.
    pub repeated: bool,
}

/// A letter with its name in the mailbox.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "Received{L}")]
pub struct Received<L> {
    /// What it is acknowledged by.
    pub name: String,
    /// The letter.
    #[serde(flatten)]
    pub letter: L,
}

/// The mailboxes of all tenants.
pub struct Mailboxes {
    store: SharedStore,
    clock: SharedClock,
    genesis: Genesis,
    config: Config,
    /// Where it is noted what sessions send.
    trail: Option<Trail>,
}

/// What a change is made over.
struct Now {
    register: Register,
    /// The revision of its record; 0: there is none yet.
    held: u64,
}

impl Mailboxes {
    /// Mailboxes kept in `store`.
    #[must_use]
    pub fn new(store: SharedStore, clock: SharedClock, genesis: Genesis, config: Config) -> Self {
        Self { store, clock, genesis, config, trail: None }
    }

    /// The same, noting in `trail` which letters sessions send.
    #[must_use]
    pub fn with_trail(self, trail: Trail) -> Self {
        Self { trail: Some(trail), ..self }
    }

    /// Puts a letter into a mailbox. It is durable when this returns.
    ///
    /// # Errors
    /// `forbidden`, `bad_request`, `body_too_large`, `overloaded` if the mailbox is full, or those
    /// of the store: then try again by the same `id`.
    pub async fn send(
        &self,
        caller: &Caller,
        to: &Address,
        new: NewLetter,
    ) -> Result<Sent, Problem> {
        let is_user = caller.principal.kind == PrincipalKind::User;
        if is_user && !caller.is_trusted() && !self.config.users_send && *to != Address::of(caller)
        {
            return Err(Problem::new(Code::Forbidden, "users send no letters to others"));
        }
        let partition = to.partition(caller)?;
        let id = match new.id {
            Some(id)
                if (1..=ID_BYTES_MAX).contains(&id.len()) && !id.contains(char::is_control) =>
            {
                id
            }
            Some(_) => {
                let detail = "`id` is 1 to 128 bytes without control characters";
                return Err(Problem::new(Code::BadRequest, detail));
            }
            None => format!("{:032x}", u128::from_be_bytes(clock::random(&*self.clock))),
        };
        let bytes = new.data.to_string().len();
        if bytes > self.config.letter_bytes_max {
            let limit = self.config.letter_bytes_max;
            let detail = format!("the letter has {bytes} bytes; at most {limit} are allowed");
            return Err(Problem::new(Code::BodyTooLarge, detail));
        }
        let Caller { principal, .. } = caller;
        let by_id = sent_as(principal.kind, &principal.id, &id)?;
        for _ in 0..ATTEMPTS {
            if let Some(record) = self.get(&partition, &by_id).await? {
                return Ok(Sent { letter: read(&record)?, id, repeated: true });
            }
            let mut now = self.now(&partition).await?;
            if now.register.waiting >= self.config.letters_max {
                let detail = "the mailbox is full; letters have to be acknowledged first";
                return Err(Problem::new(Code::Overloaded, detail));
            }
            now.register.last += 1;
            now.register.waiting += 1;
            let name = name(now.register.last);
            let sent = self.clock.now();
            let letter = Letter {
                id: id.clone(),
                from: principal.id.clone(),
                from_kind: principal.kind,
                sent,
                expires: new.ttl.map(|ttl| sent.plus(ttl)),
                refused: None,
                data: new.data.clone(),
            };
            let remember = Write::Put {
                key: by_id.clone(),
                value: write(&name).into(),
                expires: Some(self.config.ids_for),
            };
            let commit = Commit::new(partition.clone())
                .check(Check::Absent { key: by_id.clone() })
                .write(remember);
            let commit = self.becomes(commit, &mut now, &name, Some(&letter), &principal.id)?;
            if self.commit(commit, now).await? {
                if let (Some(trail), Some(session)) = (&self.trail, caller.session) {
                    let what = What::Letter { to: to.to_string(), id: id.clone() };
                    trail.note(&caller.tenant, session, what);
                }
                return Ok(Sent { letter: name, id, repeated: false });
            }
        }
        Err(busy())
    }

    /// Letters that wait, the oldest first, behind the one named `after`: at most 100.
    ///
    /// # Errors
    /// `forbidden`, or those of the store.
    pub async fn list(
        &self,
        caller: &Caller,
        of: &Address,
        after: Option<&str>,
    ) -> Result<Vec<Received<Letter>>, Problem> {
        let partition = of.open_to(caller)?;
        after.map_or(Ok(()), named)?;
        self.bury_expired(&partition, caller).await?;
        let records = self.scan(&partition, "", after.unwrap_or(BEFORE_ENTRIES)).await?;
        let received = |(name, record)| Ok(Received { name, letter: letter::letter(&record)? });
        records.into_iter().map(received).collect()
    }

    /// Takes a letter out for good. One that is gone already is no error.
    ///
    /// # Errors
    /// `forbidden`, or those of the store: then it may come again.
    pub async fn acknowledge(
        &self,
        caller: &Caller,
        of: &Address,
        letter: &str,
    ) -> Result<(), Problem> {
        let partition = of.open_to(caller)?;
        named(letter)?;
        for _ in 0..ATTEMPTS {
            let Some(record) = self.get(&partition, &key(letter)?).await? else { return Ok(()) };
            let mut now = self.now(&partition).await?;
            now.register.waiting = now.register.waiting.saturating_sub(1);
            let commit = unchanged(&partition, letter, &record)?;
            let by = &caller.principal.id;
            let commit = self.becomes(commit, &mut now, letter, None, by)?;
            if self.commit(commit, now).await? {
                return Ok(());
            }
        }
        Err(busy())
    }

    /// Gives a letter back: its reader can do nothing with it now. It comes again, unless that
    /// was too often.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, or those of the store.
    pub async fn give_back(
        &self,
        caller: &Caller,
        of: &Address,
        letter: &str,
        why: &str,
    ) -> Result<(), Problem> {
        let partition = of.open_to(caller)?;
        named(letter)?;
        if why.len() > WHY_BYTES_MAX {
            return Err(Problem::new(Code::BadRequest, "`why` has at most 512 bytes"));
        }
        for _ in 0..ATTEMPTS {
            let record = self.get(&partition, &key(letter)?).await?.ok_or_else(unknown)?;
            let mut held = letter::letter(&record)?;
            let times = held.refused.as_ref().map_or(0, |refused| refused.times) + 1;
            held.refused = Some(Refused { times, why: why.to_owned() });
            let mut now = self.now(&partition).await?;
            let commit = unchanged(&partition, letter, &record)?;
            let by = &caller.principal.id;
            let commit = if times >= self.config.refusals_max {
                self.buried(commit, &mut now, letter, held, "refused", by).await?
            } else {
                self.becomes(commit, &mut now, letter, Some(&held), by)?
            };
            if self.commit(commit, now).await? {
                return Ok(());
            }
        }
        Err(busy())
    }

    /// Dead letters, behind the one named `after`: at most 100.
    ///
    /// # Errors
    /// `forbidden`, or those of the store.
    pub async fn dead(
        &self,
        caller: &Caller,
        of: &Address,
        after: Option<&str>,
    ) -> Result<Vec<Received<Dead>>, Problem> {
        let partition = of.open_to(caller)?;
        after.map_or(Ok(()), named)?;
        self.bury_expired(&partition, caller).await?;
        let after = format!("{DEAD}{}", after.unwrap_or_default());
        let records = self.scan(&partition, DEAD, &after).await?;
        let received = |(name, record): (String, Record)| {
            let name = name.trim_start_matches(DEAD).to_owned();
            Ok(Received { name, letter: read(&record)? })
        };
        records.into_iter().map(received).collect()
    }

    /// Puts a dead letter among the living again, behind all others, and without its expiry.
    ///
    /// # Errors
    /// `not_found`, `overloaded` if the mailbox is full, `forbidden`, or those of the store.
    pub async fn revive(
        &self,
        caller: &Caller,
        of: &Address,
        letter: &str,
    ) -> Result<String, Problem> {
        let partition = of.open_to(caller)?;
        named(letter)?;
        let grave = format!("{DEAD}{letter}");
        for _ in 0..ATTEMPTS {
            let record = self.get(&partition, &key(&grave)?).await?.ok_or_else(unknown)?;
            let Dead { letter, .. } = read(&record)?;
            let letter = Letter { expires: None, refused: None, ..letter };
            let mut now = self.now(&partition).await?;
            if now.register.waiting >= self.config.letters_max {
                return Err(Problem::new(Code::Overloaded, "the mailbox is full"));
            }
            now.register.last += 1;
            now.register.waiting += 1;
            now.register.dead = now.register.dead.saturating_sub(1);
            let name = name(now.register.last);
            let commit = unchanged(&partition, &grave, &record)?;
            let commit = commit.write(Write::Delete { key: key(&grave)? });
            let by = &caller.principal.id;
            let commit = self.becomes(commit, &mut now, &name, Some(&letter), by)?;
            if self.commit(commit, now).await? {
                return Ok(name);
            }
        }
        Err(busy())
    }

    /// Makes dead letters of those that have expired, so that nobody reads them.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn bury_expired(
        &self,
        partition: &Partition,
        caller: &Caller,
    ) -> Result<(), Problem> {
        let mut after = BEFORE_ENTRIES.to_owned();
        loop {
            let page = self.scan(partition, "", &after).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after.clone_from(last);
            let at = self.clock.now();
            for (name, record) in page {
                let letter = letter::letter(&record)?;
                if letter.expires.is_none_or(|expires| expires > at) {
                    continue;
                }
                let mut now = self.now(partition).await?;
                let commit = unchanged(partition, &name, &record)?;
                let by = &caller.principal.id;
                let commit = self.buried(commit, &mut now, &name, letter, "expired", by).await?;
                // If it has changed meanwhile, somebody else deals with it.
                self.commit(commit, now).await?;
            }
        }
    }

    /// Adds that a letter is dead; where there are as many as may be, the oldest gives way.
    async fn buried(
        &self,
        commit: Commit,
        now: &mut Now,
        name: &str,
        letter: Letter,
        why: &str,
        by: &PrincipalId,
    ) -> Result<Commit, Problem> {
        now.register.waiting = now.register.waiting.saturating_sub(1);
        let mut commit = commit;
        if now.register.dead < self.config.dead_max {
            now.register.dead += 1;
        } else if let Some((oldest, _)) = self.scan(&commit.partition, DEAD, DEAD).await?.first() {
            commit = commit.write(Write::Delete { key: key(oldest)? });
        }
        let dead = Dead { letter, why: why.to_owned(), since: self.clock.now() };
        let commit = commit.put(key(&format!("{DEAD}{name}"))?, write(&dead));
        self.becomes(commit, now, name, None, by)
    }

    /// Adds that a letter becomes `letter`, or is there no more, which followers are told.
    fn becomes(
        &self,
        commit: Commit,
        now: &mut Now,
        name: &str,
        letter: Option<&Letter>,
        by: &PrincipalId,
    ) -> Result<Commit, Problem> {
        let value = letter.map(serde_json::to_value).transpose();
        let value = value.map_err(|_| Problem::new(Code::Internal, "a letter cannot be kept"))?;
        let commit = state::set(commit, name, value.as_ref(), by, self.clock.now())?;
        now.register.changes += 1;
        let changes = now.register.changes;
        if changes.is_multiple_of(TRIM_EVERY) && changes > CHANGES_KEPT {
            let first = changes - CHANGES_KEPT + 1;
            return Ok(commit.write(Write::Trim { stream: CHANGES, first }));
        }
        Ok(commit)
    }

    async fn now(&self, partition: &Partition) -> Result<Now, Problem> {
        match self.get(partition, &register()).await? {
            Some(record) => Ok(Now { register: read(&record)?, held: record.revision }),
            None => Ok(Now { register: Register::default(), held: 0 }),
        }
    }

    /// Commits with the register; false if somebody else was faster.
    async fn commit(&self, mut commit: Commit, now: Now) -> Result<bool, Problem> {
        let key = register();
        if now.held == 0 {
            let begun = self.store.head(&commit.partition).await.map_err(store_problem)?;
            if begun.is_none() {
                let begin = self.genesis.begin(&commit.partition).await.map_err(store_problem)?;
                commit.writes.insert(0, begin);
            }
        }
        commit = commit.check(match now.held {
            0 => Check::Absent { key: key.clone() },
            revision => Check::Revision { key: key.clone(), revision },
        });
        match self.store.commit(commit.put(key, write(&now.register))).await {
            Ok(_) => Ok(true),
            Err(store::Error::Conflict { .. }) => Ok(false),
            Err(error) => Err(store_problem(error)),
        }
    }

    async fn get(&self, partition: &Partition, key: &Key) -> Result<Option<Record>, Problem> {
        self.store.get(partition, key).await.map_err(store_problem)
    }

    async fn scan(
        &self,
        partition: &Partition,
        prefix: &str,
        after: &str,
    ) -> Result<Vec<(String, Record)>, Problem> {
        let after = key(after)?;
        let page = self.store.scan(partition, prefix.as_bytes(), Some(&after), PAGE).await;
        let page = page.map_err(store_problem)?;
        let named = |(key, record): (Key, Record)| {
            (String::from_utf8_lossy(key.as_bytes()).into_owned(), record)
        };
        Ok(page.records.into_iter().map(named).collect())
    }
}

/// A commit that demands that a record is as it was.
fn unchanged(partition: &Partition, name: &str, record: &Record) -> Result<Commit, Problem> {
    let check = Check::Revision { key: key(name)?, revision: record.revision };
    Ok(Commit::new(partition.clone()).check(check))
}

fn unknown() -> Problem {
    Problem::new(Code::NotFound, "there is no such letter")
}

fn busy() -> Problem {
    Problem::new(Code::Overloaded, "too many use the mailbox at once")
}

#[cfg(test)]
mod tests;
