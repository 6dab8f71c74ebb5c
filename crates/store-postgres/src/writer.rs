//! Writers: each turns the commits that wait for it into transactions, on a connection of its
//! own. A partition always falls to the same writer, so a node's own commits never wait for
//! each other's locks.

use crate::{
    batch::{Done, Work},
    connection::Connection,
    engine::Engine,
    error::Failure,
    transaction::{Outcome, Transaction},
};
use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use store::{Error, Partition};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};

/// Between tries of what was rolled back.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// Partitions that a writer remembers to exist.
const KNOWN_MAX: usize = 100_000;

/// What is asked, and what it takes of the queue.
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) share: OwnedSemaphorePermit,
    pub(crate) reply: oneshot::Sender<Result<Done, Error>>,
}

pub(crate) struct Writer {
    engine: Arc<Engine>,
    connection: Option<Connection>,
    known: HashSet<Partition>,
}

impl Writer {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, connection: None, known: HashSet::new() }
    }

    /// Works until nobody can ask any more, and all that was asked is done.
    pub(crate) async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let (commits, bytes) = (self.engine.options.batch_commits, self.engine.options.batch_bytes);
        while let Some(first) = jobs.recv().await {
            let mut size = first.share.num_permits();
            let mut batch = vec![first];
            while batch.len() < commits && size < bytes {
                let Ok(job) = jobs.try_recv() else { break };
                size += job.share.num_permits();
                batch.push(job);
            }
            self.write(batch).await;
        }
    }

    async fn write(&mut self, batch: Vec<Job>) {
        let works: Vec<&Work> = batch.iter().map(|job| &job.work).collect();
        match self.persist(&works).await {
            Err(Failure::Refused(error)) if batch.len() > 1 => {
                tracing::debug!(%error, "a batch is refused: each of its commits is tried alone");
                self.write_apart(batch).await;
            }
            result => self.answer(batch, result),
        }
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
    }

    /// One after the other, so that what cannot be done to one partition harms no other; as
    /// long as there is patience for it.
    async fn write_apart(&mut self, batch: Vec<Job>) {
        let until = Instant::now() + self.engine.options.patience;
        for job in batch {
            let result = match Instant::now() < until {
                true => self.persist(&[&job.work]).await,
                false => Err(Failure::Again("there was no time left for it".into())),
            };
            self.answer(vec![job], result);
        }
    }

    fn answer(&self, batch: Vec<Job>, result: Result<Outcome, Failure>) {
        match result {
            Ok(outcome) => {
                outcome.changed.iter().for_each(|partition| self.engine.hints.notify(partition));
                if !outcome.changed.is_empty() {
                    self.engine.committed.notify_one();
                }
                for (job, answer) in batch.into_iter().zip(outcome.answers) {
                    // Whoever has gone away does not want to know.
                    let _ = job.reply.send(answer);
                }
            }
            Err(failure) => {
                tracing::warn!(?failure, commits = batch.len(), "commits failed");
                for job in batch {
                    let _ = job.reply.send(Err(failure.error()));
                }
            }
        }
    }

    /// Tries until it is done, refused, or unknown, or there is no more patience.
    async fn persist(&mut self, works: &[&Work]) -> Result<Outcome, Failure> {
        let until = Instant::now() + self.engine.options.patience;
        let mut pause = RETRY_MIN;
        loop {
            match self.attempt(works).await {
                Err(Failure::Again(why)) if Instant::now() + pause < until => {
                    tracing::debug!(%why, "a batch was rolled back and is tried again");
                }
                Err(Failure::AnotherServer | Failure::NotSynchronous)
                    if Instant::now() + pause < until => {}
                done => return done,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn attempt(&mut self, works: &[&Work]) -> Result<Outcome, Failure> {
        let engine = &*self.engine;
        let connection = match self.connection.take().filter(|c| !c.client.is_closed()) {
            Some(connection) => connection,
            None => engine.connector.connect(None).await.map_err(Failure::Again)?,
        };
        let life = engine.lives.known();
        let begin = self.begin();
        let transaction = Transaction {
            connection: &connection,
            sql: &engine.sql,
            begin: &begin,
            time: &engine.time,
            life: &life,
            clock: &*engine.clock,
            answer_max: engine.connector.answer_max(),
        };
        let outcome = transaction.run(works, &mut self.known).await;
        match &outcome {
            Ok(_) => self.connection = Some(connection),
            // A connection within a transaction is of no use; closing it rolls back.
            Err(_) => connection.abandon(),
        }
        match &outcome {
            Err(Failure::AnotherServer) => {
                engine.lives.renew_after(&life, &engine.connector).await.map_err(Failure::Again)?;
            }
            Err(Failure::NotSynchronous) => engine.asks_for_sync.store(true, Ordering::Relaxed),
            Ok(_) | Err(Failure::Again(_) | Failure::Refused(_) | Failure::Unknown(_)) => {}
        }
        outcome
    }

    fn begin(&self) -> String {
        let timeout = self.engine.options.statement_timeout.as_millis();
        let sync = match self.engine.asks_for_sync.load(Ordering::Relaxed) {
            true => "; SET LOCAL synchronous_commit = on",
            false => "",
        };
        // Without READ WRITE: a server that was set to read-only, as Supabase does when the disk
        // is full, is not overruled. A node that is stopped while it holds locks does not hold
        // them for long.
        format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; \
             SET LOCAL statement_timeout = {timeout}; \
             SET LOCAL idle_in_transaction_session_timeout = {timeout}{sync}"
        )
    }
}
