//! Traces that this node holds: what passes through some of its connections is published to a
//! channel that only services and admins of their tenant may follow.
//!
//! What a core sees it adds to a batch, which is published ten times a second. A batch is bounded;
//! what does not fit is counted. While there is no trace a core looks at one flag of its own.

mod shown;

pub(crate) use shown::{Direction, Kind, Seen, Text, channel_of, shown};

use crate::{Realtime, channel::Channel, hub::ToCore};
use clock::SharedClock;
use parking_lot::Mutex;
use protocol::{Code, Problem};
use serde::Serialize;
use serde_json::value::RawValue;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::{Notify, mpsc};
use traffic_cop::{
    connections::Selector,
    traces::{End, NewTrace, OF_NODE_MAX, OF_TENANT_MAX, Question, Standing, Trace},
};
use types::{Caller, ConnectionId, TenantId, Timestamp};

/// How often what was seen is published.
const PUBLISHED_EVERY: Duration = Duration::from_millis(100);
/// What one batch holds: 500 a second.
const BATCH_MAX: usize = 50;
/// How long the last records can be read where they pass through a store.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// Traces that are over, and are not begun again by who has not heard of that.
const OVER_MAX: usize = 64;
/// Commands of traced channels whose answers are waited for, on a core.
const COMMANDS_MAX: usize = 1_024;

/// A trace on this node.
pub(crate) struct Held {
    trace: Trace,
    is_owner: bool,
    batch: Mutex<Batch>,
    /// When the owner was heard of last.
    heard: Mutex<Duration>,
    is_ended: AtomicBool,
    ended: Notify,
}

#[derive(Default)]
struct Batch {
    frames: Vec<Box<RawValue>>,
    dropped: u64,
}

/// What is published of a trace.
#[derive(Serialize)]
struct Record<'a> {
    trace: &'a str,
    node: &'a str,
    /// Counts the records of this node, from 1: where one is missing it was lost on its way.
    number: u64,
    /// Frames since the last record that were too many to be shown.
    dropped: u64,
    frames: Vec<Box<RawValue>>,
    /// Why there will be no more of this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<End>,
}

impl Held {
    fn add(&self, frame: Box<RawValue>) {
        let mut batch = self.batch.lock();
        match batch.frames.len() < BATCH_MAX {
            true => batch.frames.push(frame),
            false => batch.dropped += 1,
        }
    }

    fn end(&self) {
        self.is_ended.store(true, Relaxed);
        self.ended.notify_one();
    }
}

/// The traces of a node.
#[derive(Default)]
pub(crate) struct Traces {
    held: Mutex<Vec<Arc<Held>>>,
    over: Mutex<VecDeque<String>>,
}

impl Traces {
    fn all(&self) -> Vec<Arc<Held>> {
        self.held.lock().clone()
    }

    fn of(&self, tenant: &TenantId) -> Vec<Trace> {
        let held = self.held.lock();
        let own = held.iter().filter(|held| held.trace.tenant == *tenant);
        own.map(|held| held.trace.clone()).collect()
    }

    fn find(&self, tenant: &TenantId, id: &str) -> Option<Arc<Held>> {
        let held = self.held.lock();
        held.iter().find(|held| held.trace.tenant == *tenant && held.trace.id == id).cloned()
    }

    /// Begins one; `None` if it is over.
    fn begin(
        &self,
        trace: Trace,
        is_owner: bool,
        now: Duration,
    ) -> Result<Option<Arc<Held>>, Problem> {
        if self.over.lock().contains(&trace.id) {
            return Ok(None);
        }
        let mut held = self.held.lock();
        let of_tenant = held.iter().filter(|held| held.trace.tenant == trace.tenant).count();
        if of_tenant >= OF_TENANT_MAX || held.len() >= OF_NODE_MAX {
            let detail = "there are as many traces as may be; end one, or wait until one ends";
            return Err(Problem::new(Code::Overloaded, detail));
        }
        let begun = Arc::new(Held {
            trace,
            is_owner,
            batch: Mutex::default(),
            heard: Mutex::new(now),
            is_ended: AtomicBool::new(false),
            ended: Notify::new(),
        });
        held.push(begun.clone());
        Ok(Some(begun))
    }

    fn forget(&self, over: &Arc<Held>) {
        self.held.lock().retain(|held| !Arc::ptr_eq(held, over));
        let mut ids = self.over.lock();
        ids.truncate(OVER_MAX - 1);
        ids.push_front(over.trace.id.clone());
    }
}

impl Realtime {
    /// A trace that this node is to own.
    ///
    /// # Errors
    /// Those of [`NewTrace::check`].
    pub fn new_trace(&self, by: &Caller, new: &NewTrace) -> Result<Trace, Problem> {
        new.check()?;
        let clock = &*self.parts.clock;
        let since = clock.now();
        Ok(Trace {
            id: format!("{:032x}", u128::from_be_bytes(clock::random(clock))),
            tenant: by.tenant.clone(),
            of: new.of.clone(),
            by: by.principal.id.clone(),
            node: self.parts.node.clone(),
            since,
            until: since.plus(new.duration),
        })
    }

    /// Begins, ends or tells traces of a tenant on this node; answers those that it holds, or the
    /// one that it has ended. Once a beginning is answered, every frame is traced.
    ///
    /// # Errors
    /// `overloaded` if it holds as many as it may.
    pub async fn trace(self: &Arc<Self>, question: Question) -> Result<Vec<Trace>, Problem> {
        match question {
            Question::Hold(trace) => {
                let tenant = trace.tenant.clone();
                self.hold_trace(*trace).await?;
                Ok(self.traces.of(&tenant))
            }
            Question::End { tenant, id } => {
                let Some(held) = self.traces.find(&tenant, &id) else { return Ok(Vec::new()) };
                held.end();
                self.traces.forget(&held);
                self.tell_traces().await;
                Ok(vec![held.trace.clone()])
            }
            Question::Tell { tenant } => Ok(self.traces.of(&tenant)),
        }
    }

    async fn hold_trace(self: &Arc<Self>, trace: Trace) -> Result<(), Problem> {
        let now = self.parts.clock.elapsed();
        if let Some(held) = self.traces.find(&trace.tenant, &trace.id) {
            *held.heard.lock() = now;
            return Ok(());
        }
        let is_owner = trace.node == self.parts.node;
        tracing::info!(tenant = %trace.tenant, trace = trace.id, by = %trace.by, of = ?trace.of,
            "connections are traced");
        if let Some(begun) = self.traces.begin(trace, is_owner, now)? {
            self.tell_traces().await;
            self.parts.control.spawn(self.clone().show(begun));
        }
        Ok(())
    }

    /// Has every core look at the traces there are; returns when all have.
    async fn tell_traces(&self) {
        let cores = self.cores.lock().clone();
        let (done, mut all) = mpsc::channel::<()>(1);
        for core in cores {
            let _ = core.send(ToCore::LookAtTraces { done: done.clone() }).await;
        }
        drop(done);
        // Nothing is said; each core drops its sender.
        let _ = all.recv().await;
    }

    /// Publishes what is seen until the trace ends.
    async fn show(self: Arc<Self>, held: Arc<Held>) {
        let mut number = 0;
        loop {
            tokio::select! {
                () = held.ended.notified() => {}
                () = tokio::time::sleep(PUBLISHED_EVERY) => {}
            }
            let now = self.parts.clock.elapsed();
            let heard = (!held.is_owner).then(|| now.saturating_sub(*held.heard.lock()));
            let is_ended = held.is_ended.load(Relaxed);
            let standing = Standing { until: held.trace.until, heard, is_ended };
            let ended = standing.end(self.parts.clock.now());
            if ended.is_some() {
                self.traces.forget(&held);
                self.tell_traces().await;
            }
            let Batch { frames, dropped } = std::mem::take(&mut *held.batch.lock());
            if !frames.is_empty() || dropped > 0 || ended.is_some() {
                number += 1;
                let (trace, node) = (&*held.trace.id, &*self.parts.node);
                let record = Record { trace, node, number, dropped, frames, ended };
                self.publish_record(&held.trace, &record).await;
            }
            if ended.is_some() {
                break;
            }
        }
        if held.is_owner {
            tokio::time::sleep(READ_WITHIN).await;
            self.clear_records(&held.trace).await;
        }
    }

    async fn publish_record(&self, trace: &Trace, record: &Record<'_>) {
        let Ok(data) = serde_json::value::to_raw_value(record) else { return };
        let published = match Channel::new(&trace.tenant, &trace.channel()) {
            Ok(channel) => self.publications.pass_on(channel, data).await,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = published {
            // Whoever follows it sees that a number is missing.
            tracing::warn!(problem.detail, trace = trace.id, "a part of a trace is lost");
        }
    }
}

impl Realtime {
    async fn clear_records(&self, trace: &Trace) {
        let cleared = match Channel::new(&trace.tenant, &trace.channel()) {
            Ok(channel) => self.publications.clear_passed(&channel).await,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = cleared {
            tracing::warn!(
                problem.detail,
                trace = trace.id,
                "records of a trace stay in the store"
            );
        }
    }
}

/// The traces as a core knows them.
pub(crate) struct Tracer {
    clock: SharedClock,
    is_active: Cell<bool>,
    held: RefCell<Vec<Arc<Held>>>,
    /// Commands about a traced channel, whose answers do not name it.
    commands: RefCell<VecDeque<(ConnectionId, u32, Box<str>)>>,
    /// Commands that open connections, until it is known whose these are.
    opening: RefCell<VecDeque<(ConnectionId, Timestamp, Text)>>,
}

impl Tracer {
    /// There is no trace yet.
    pub(crate) fn new(clock: SharedClock) -> Self {
        let (held, commands, opening) = Default::default();
        Self { clock, is_active: Cell::new(false), held, commands, opening }
    }

    /// The time, as traces tell it.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A connection is about to open by this command.
    pub(crate) fn opens(&self, connection: ConnectionId, text: Text) {
        let mut opening = self.opening.borrow_mut();
        opening.truncate(COMMANDS_MAX - 1);
        opening.push_front((connection, self.now(), text));
    }

    /// The command that a connection was opened by.
    pub(crate) fn opened(&self, connection: ConnectionId) -> Option<(Timestamp, Text)> {
        let mut opening = self.opening.borrow_mut();
        let at = opening.iter().position(|(of, ..)| *of == connection)?;
        opening.remove(at).map(|(_, at, text)| (at, text))
    }

    /// Whether there is any trace.
    pub(crate) fn is_active(&self) -> bool {
        self.is_active.get()
    }

    /// Takes over those that the node has.
    pub(crate) fn look(&self, node: &Traces) {
        let held = node.all();
        self.is_active.set(!held.is_empty());
        if held.is_empty() {
            self.commands.take();
            self.opening.take();
        }
        *self.held.borrow_mut() = held;
    }

    /// Adds what was seen to each trace that it belongs to; `is_meant`: whether the connection is
    /// one of those, its channels apart.
    pub(crate) fn add(
        &self,
        is_meant: impl Fn(&TenantId, &Selector) -> bool,
        channel: Option<&str>,
        frame: impl FnOnce() -> Option<Box<RawValue>>,
    ) {
        let meant: Vec<Arc<Held>> = {
            let held = self.held.borrow();
            let meant = held.iter().filter(|held| {
                let of = &held.trace.of;
                let is_about = of.channel.as_deref().is_none_or(|of| channel == Some(of));
                is_about && is_meant(&held.trace.tenant, &Selector { channel: None, ..of.clone() })
            });
            meant.cloned().collect()
        };
        if meant.is_empty() {
            return;
        }
        let Some(frame) = frame() else { return };
        for held in meant {
            held.add(frame.clone());
        }
    }

    /// Remembers which channel a command was about.
    pub(crate) fn asks(&self, connection: ConnectionId, command: u32, channel: &str) {
        let of_channel = |held: &Arc<Held>| held.trace.of.channel.as_deref() == Some(channel);
        if command == 0 || !self.held.borrow().iter().any(of_channel) {
            return;
        }
        let mut commands = self.commands.borrow_mut();
        commands.truncate(COMMANDS_MAX - 1);
        commands.push_front((connection, command, channel.into()));
    }

    /// Which channel the answer to a command is about, if that was remembered.
    pub(crate) fn answered(&self, connection: ConnectionId, command: u32) -> Option<Box<str>> {
        let mut commands = self.commands.borrow_mut();
        let at = commands.iter().position(|(of, id, _)| *of == connection && *id == command)?;
        commands.remove(at).map(|(.., channel)| channel)
    }
}
