//! What is told of realms: how a request meets a bridge, and how documents were broken.

use clock::SharedClock;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use types::Timestamp;

/// A bridge, as a request meets it.
#[derive(Debug, Clone, Serialize)]
pub struct BridgeTold {
    /// The realm that asks.
    pub from: String,
    /// The realm that is asked.
    pub to: String,
    /// The service there.
    pub service: String,
    /// The operation, if the service has a document.
    pub operation: Option<String>,
    /// The rule that decides; none within a realm.
    pub rule: Option<String>,
    /// Whether it lets the request pass.
    pub allows: bool,
}

/// Who broke a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// A client, by its request.
    Request,
    /// The service, by its answer.
    Response,
}

/// How an operation's document was broken.
#[derive(Debug, Clone, Serialize)]
pub struct Broken {
    /// The service.
    pub service: String,
    /// The operation.
    pub operation: String,
    /// By whom.
    pub side: Side,
    /// How often, since the node started.
    pub count: u64,
    /// What was wrong the last time.
    pub last: String,
    /// When that was.
    pub at: Timestamp,
}

/// What broke, by operation: as many as there are operations.
#[derive(Debug, Default)]
pub(crate) struct Violations(Mutex<BTreeMap<(String, String, Side), Broken>>);

impl Violations {
    pub(super) fn note(
        &self,
        service: &str,
        operation: &str,
        side: Side,
        why: &str,
        clock: &SharedClock,
    ) {
        tracing::debug!(service, operation, ?side, why, "a document was broken");
        let key = (service.to_owned(), operation.to_owned(), side);
        let mut broken = self.0.lock();
        let broken = broken.entry(key).or_insert_with(|| Broken {
            service: service.to_owned(),
            operation: operation.to_owned(),
            side,
            count: 0,
            last: String::new(),
            at: Timestamp(0),
        });
        broken.count += 1;
        why.clone_into(&mut broken.last);
        broken.at = clock.now();
    }

    pub(crate) fn all(&self) -> Vec<Broken> {
        self.0.lock().values().cloned().collect()
    }
}
