//! Sessions that are ended: one, those of a user or of a device, all of a tenant.
//!
//! What is left of an ended session says why it ended, so that every node that looks at it can
//! tell its sockets, and is kept as long as its events are.

use crate::{
    identity::refused,
    session::{
        Event, EventKind, KIND, Sessions, Status, key, left_key, partition,
        past::telling,
        record::{SessionRecord, epitaph, parting},
        unknown,
    },
    storage,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use protocol::{Code, Problem};
use store::{Check, Commit, Error, Key, Partition, Write};
use types::{Principal, SessionId, TenantId};

/// Sessions that one commit ends: each takes four writes.
const AT_ONCE: usize = 30;
/// Principals whose sessions are ended at the same time.
const SHELVES_AT_ONCE: usize = 64;
const PAGE: usize = 1_000;

/// Why a session ends, and by whom.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Why: a word for those who read it, and for the sockets' clients.
    pub why: &'a str,
    /// Who says so.
    pub by: Option<&'a Principal>,
}

/// Which sessions of a partition.
pub(super) type Which<'a> = dyn Fn(&SessionRecord) -> bool + Send + Sync + 'a;

impl Sessions {
    /// Ends a session. Its token is refused, its connections close, and what it kept is
    /// forgotten.
    ///
    /// # Errors
    /// `not_found`, or those of the store.
    pub async fn destroy(
        &self,
        tenant: &TenantId,
        id: SessionId,
        end: End<'_>,
    ) -> Result<(), Problem> {
        let which = |record: &SessionRecord| record.id == id;
        match self.end_some(&partition(tenant, id.shelf())?, &which, end).await? {
            0 => Err(unknown()),
            _ => Ok(()),
        }
    }

    /// Ends all sessions of a principal, or those on one of its devices, and says how many there
    /// were.
    ///
    /// # Errors
    /// Those of the store; some may have ended by then.
    pub async fn end_all_of(
        &self,
        tenant: &TenantId,
        principal: &Principal,
        device: Option<&str>,
        end: End<'_>,
    ) -> Result<usize, Problem> {
        let which = |record: &SessionRecord| {
            let on = record.device.as_ref().map(|on| on.id.as_str());
            record.is_of(principal) && device.is_none_or(|device| on == Some(device))
        };
        let partition = partition(tenant, super::record::shelf(principal))?;
        self.end_some(&partition, &which, end).await
    }

    /// Ends every session that a tenant has when this is asked, and says how many there were.
    ///
    /// # Errors
    /// Those of the store; some may have ended by then.
    pub async fn end_all(&self, tenant: &TenantId, end: End<'_>) -> Result<usize, Problem> {
        let (mut ended, mut after) = (0, None::<String>);
        loop {
            let page = self.store.list(tenant, &KIND, after.as_deref(), PAGE).await;
            let page = page.map_err(storage::problem)?;
            after = page.partitions.last().map(|last| last.id().to_owned());
            let ending = page
                .partitions
                .into_iter()
                .map(|partition| async move { self.end_some(&partition, &|_| true, end).await });
            let counts: Vec<usize> =
                stream::iter(ending).buffer_unordered(SHELVES_AT_ONCE).try_collect().await?;
            ended += counts.into_iter().sum::<usize>();
            if !page.more {
                return Ok(ended);
            }
        }
    }

    /// Ends those living sessions of a partition that are meant.
    async fn end_some(
        &self,
        partition: &Partition,
        which: &Which<'_>,
        end: End<'_>,
    ) -> Result<usize, Problem> {
        let mut ended = 0;
        for _ in 0..super::ATTEMPTS {
            let meant = self.living(partition, which).await?;
            let mut is_over = true;
            for some in meant.chunks(AT_ONCE) {
                let mut commit = Commit::new(partition.clone());
                for (record, revision) in some {
                    let (key, revision) = (key(record.id), *revision);
                    commit = commit.check(Check::Revision { key, revision });
                    commit = self.ending(commit, record, end);
                }
                match self.commit(commit).await {
                    Ok(_) => {
                        ended += some.len();
                        for (record, _) in some {
                            self.is_ended(partition.tenant(), record, end.why).await;
                        }
                    }
                    Err(Error::Conflict { .. }) => is_over = false,
                    Err(error) => return Err(storage::problem(error)),
                }
            }
            if is_over {
                return Ok(ended);
            }
        }
        Err(Problem::new(Code::Conflict, "the sessions are changed by too many at once"))
    }

    /// What the client of a socket is told whose session is over.
    pub async fn parting(&self, tenant: &TenantId, id: SessionId) -> String {
        let left = match partition(tenant, id.shelf()) {
            Ok(partition) => self.store.get(&partition, &left_key(id)).await.ok().flatten(),
            Err(_) => None,
        };
        let told = left.and_then(|left| epitaph(&left.value));
        told.map_or_else(|| "session ended".to_owned(), |why| why.told.into())
    }

    /// A commit that ends a session, too.
    pub(super) fn ending(&self, commit: Commit, record: &SessionRecord, end: End<'_>) -> Commit {
        let now = self.clock.now();
        let event = Event::new(now, EventKind::Revoked, end.by).with("reason", end.why);
        let commit = telling(commit, record, [event], self.config.events_keep);
        let commit = commit.write(Write::Delete { key: key(record.id) });
        commit.write(self.left(record, Some(end.why), now))
    }

    /// Tells whoever has to know that a session has ended.
    pub(super) async fn is_ended(&self, tenant: &TenantId, record: &SessionRecord, why: &str) {
        self.revocations.revoke(tenant, Some(record.id), &parting(why));
        if record.durable
            && let Err(problem) = self.forget_kept(tenant, record.id).await
        {
            // Nobody reads it any more, and it expires.
            tracing::warn!(problem.detail, "what an ended session kept stays until it expires");
        }
    }

    async fn living(
        &self,
        partition: &Partition,
        which: &Which<'_>,
    ) -> Result<Vec<(SessionRecord, u64)>, Problem> {
        let (mut living, mut after) = (Vec::new(), None::<Key>);
        loop {
            let page = self.store.scan(partition, b"", after.as_ref(), PAGE).await;
            let page = page.map_err(storage::problem)?;
            let now = self.clock.now();
            for (_, stored) in &page.records {
                let record: SessionRecord = storage::decode(&stored.value)?;
                if record.expires() > now && which(&record) {
                    living.push((record, stored.revision));
                }
            }
            after = page.records.into_iter().next_back().map(|(key, _)| key);
            if !page.more || after.is_none() {
                return Ok(living);
            }
        }
    }

    /// Clears away what is left of sessions that are over, but for the last few of them.
    pub(super) fn clearing(&self, commit: Commit, mut left: Vec<SessionRecord>) -> Commit {
        left.sort_by_key(|record| record.last_used);
        let gone = left.len().saturating_sub(super::LEFTOVERS_MAX).min(AT_ONCE);
        left.iter().take(gone).fold(commit, |commit, record| {
            let event = super::past::own_end(record);
            let commit = telling(commit, record, event, self.config.events_keep);
            commit.write(Write::Delete { key: left_key(record.id) })
        })
    }
}

/// What a suspended session answers.
pub(super) fn refuse_suspended(record: &SessionRecord) -> Result<(), Problem> {
    match record.status {
        Status::Active => Ok(()),
        Status::Suspended => Err(Problem::new(Code::Forbidden, "the session is suspended")),
    }
}

/// The answer to a token that is not a session's.
pub(super) fn unknown_token() -> Problem {
    refused("the session token is not known")
}
