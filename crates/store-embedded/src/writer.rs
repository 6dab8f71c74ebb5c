//! The writer: one thread, which turns the commits that wait into groups.

use crate::{Options, folder::Folder, group::Group, time::StoreTime};
use fjall::PersistMode;
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};
use store::{Commit, Committed, Error, Hints, Key, Partition};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use types::Timestamp;

/// How long the writer waits for work before it looks for something to forget.
const IDLE: Duration = Duration::from_secs(5);
/// How long, if there is more to forget.
const BEHIND: Duration = Duration::from_millis(10);
/// How often it looks while there is work.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// A job and the share of the queue that it takes.
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) share: Option<OwnedSemaphorePermit>,
}

pub(crate) enum Work {
    Commit { commit: Commit, reply: oneshot::Sender<Result<Committed, Error>> },
    Sweep { partition: Partition, keys: Vec<Key>, reply: oneshot::Sender<Result<usize, Error>> },
    Close,
}

enum Reply {
    Commit(oneshot::Sender<Result<Committed, Error>>, Result<Committed, Error>),
    Sweep(oneshot::Sender<Result<usize, Error>>, Result<usize, Error>),
}

pub(crate) struct Writer {
    pub(crate) folder: Arc<Folder>,
    pub(crate) time: StoreTime,
    pub(crate) hints: Arc<Hints>,
    pub(crate) options: Options,
    pub(crate) forget_next: Timestamp,
    /// Whether there is more to forget.
    pub(crate) behind: bool,
    /// Why nothing is written any more.
    pub(crate) stopped: Option<String>,
}

impl Writer {
    pub(crate) fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let mut group = Vec::new();
            let wait = if self.behind { BEHIND } else { IDLE };
            match jobs.recv_timeout(wait) {
                Ok(job) => group.push(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let mut bytes = 0;
            while group.len() < self.options.group_commits && bytes < self.options.group_bytes {
                let Ok(job) = jobs.try_recv() else { break };
                bytes += job.share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
                group.push(job);
            }
            if !self.write(group) {
                break;
            }
        }
        if self.stopped.is_none() {
            // So that time does not go back after a restart with a clock that is behind.
            let mut last = Group::new(&self.folder, &self.time);
            last.remember_time(self.time.now());
            if let Err(error) = self.persist(last) {
                tracing::warn!(%error, "the time of closing is not remembered");
            }
        }
    }

    /// Writes a group. Answers whether there may be another.
    fn write(&mut self, jobs: Vec<Job>) -> bool {
        let closing = jobs.iter().any(|job| matches!(job.work, Work::Close));
        let refusal = self.refusal();
        let now = self.time.now();
        let mut group = Group::new(&self.folder, &self.time);
        let mut replies = Vec::with_capacity(jobs.len());
        let mut touched = Vec::new();
        let mut held = Vec::with_capacity(jobs.len());
        for Job { work, share } in jobs {
            held.push(share);
            match work {
                Work::Commit { commit, reply } => {
                    let answer = match &refusal {
                        Some(refusal) => Err(refusal.error()),
                        None => group.commit(&commit, now),
                    };
                    if answer.is_ok() {
                        touched.push(commit.partition);
                    }
                    replies.push(Reply::Commit(reply, answer));
                }
                Work::Sweep { partition, keys, reply } => {
                    let answer = match &refusal {
                        Some(refusal) => Err(refusal.error()),
                        None => group.sweep(&partition, &keys, now),
                    };
                    if answer.is_ok() {
                        touched.push(partition);
                    }
                    replies.push(Reply::Sweep(reply, answer));
                }
                Work::Close => {}
            }
        }
        if refusal.is_none() && (now >= self.forget_next || replies.is_empty()) {
            let more = group.forget(now).unwrap_or_else(|error| {
                tracing::error!(%error, "what is old cannot be forgotten");
                false
            });
            self.behind = more;
            self.forget_next = if more { now } else { now.plus(FORGET_EVERY) };
        }
        if !group.is_empty() {
            group.remember_time(now);
            if self.options.unsafe_ack_before_sync_for_tests {
                return self.write_wrongly(group, replies, &touched) && !closing;
            }
            if let Err(error) = self.persist(group) {
                tracing::error!(%error, "the store has stopped: nothing is written until it is reopened");
                self.stopped = Some(error.to_string());
                replies.iter_mut().for_each(|reply| reply.fail(&error));
                touched.clear();
            }
        }
        touched.iter().for_each(|partition| self.hints.notify(partition));
        replies.into_iter().for_each(Reply::send);
        drop(held);
        !closing
    }

    /// One batch, one fdatasync, and only then what readers see.
    ///
    /// `fdatasync` is enough: it writes the data and the size of the journal, all that is
    /// needed to read them back, and fjall has synced the journal's name when it made it.
    fn persist(&self, group: Group<'_>) -> fjall::Result<()> {
        self.batch(group, PersistMode::SyncData)
    }

    fn batch(&self, group: Group<'_>, mode: PersistMode) -> fjall::Result<()> {
        let mut batch = self.folder.db.batch().durability(Some(mode));
        for (key, value) in group.into_writes() {
            match value {
                Some(value) => batch.insert(&self.folder.data, key, value),
                None => batch.remove(&self.folder.data, key),
            }
        }
        batch.commit()
    }

    /// What a store must never do, so that the test of crash images can be seen to fail.
    fn write_wrongly(&self, group: Group<'_>, replies: Vec<Reply>, touched: &[Partition]) -> bool {
        let written = self.batch(group, PersistMode::Buffer).is_ok();
        touched.iter().for_each(|partition| self.hints.notify(partition));
        replies.into_iter().for_each(Reply::send);
        std::thread::sleep(Duration::from_millis(1));
        written && self.folder.db.persist(PersistMode::SyncData).is_ok()
    }

    fn refusal(&self) -> Option<Refusal> {
        if let Some(reason) = &self.stopped {
            return Some(Refusal::Stopped(reason.clone()));
        }
        match self.folder.free_bytes() {
            Ok(free) if free < self.options.free_bytes_min => {
                Some(Refusal::Full { free, wanted: self.options.free_bytes_min })
            }
            Ok(_) => None,
            Err(error) => Some(Refusal::Stopped(error.to_string())),
        }
    }
}

/// Why a group is refused before it is begun.
enum Refusal {
    Stopped(String),
    Full { free: u64, wanted: u64 },
}

impl Refusal {
    fn error(&self) -> Error {
        match self {
            Self::Stopped(reason) => {
                Error::unavailable(format!("the store has stopped until it is reopened: {reason}"))
            }
            Self::Full { free, wanted } => Error::Full {
                source: format!("{free} bytes are free on the disk, {wanted} are required").into(),
            },
        }
    }
}

impl Reply {
    /// Whatever was decided, it is not known whether it will be there after a restart.
    fn fail(&mut self, error: &fjall::Error) {
        let unknown = || Error::unavailable(error.to_string());
        match self {
            Self::Commit(_, answer) if answer.is_ok() => *answer = Err(unknown()),
            Self::Sweep(_, answer) if answer.is_ok() => *answer = Err(unknown()),
            Self::Commit(..) | Self::Sweep(..) => {}
        }
    }

    /// Whoever has gone away does not want to know.
    fn send(self) {
        match self {
            Self::Commit(to, answer) => drop(to.send(answer)),
            Self::Sweep(to, answer) => drop(to.send(answer)),
        }
    }
}
