//! `/crosstown/v1/state/{scope}/{id}`.

mod tier;

use crate::{
    answer::{Answer, json},
    request::{By, Json, Patched, Wanted},
};
use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};
use traffic_cop::state::{
    DocumentId, HistoryEntry, Moment, Operation, Restoration, SharedStates, Step, SyncStrategy,
    Transfer,
};

/// A request for changes waits at most this long.
const WAIT_MAX: Duration = Duration::from_secs(25);

pub(crate) fn routes(states: SharedStates) -> Router {
    Router::new()
        .route("/state/{scope}/{id}", get(snapshot))
        .route("/state/{scope}/{id}/changes", get(changes))
        .route("/state/{scope}/{id}/history", get(history))
        .route("/state/{scope}/{id}/transactions", post(transact))
        .route("/state/{scope}/{id}/restore", post(restore))
        .route("/state/{scope}/{id}/sync", get(sync_status).post(sync))
        .route("/state/{scope}/{id}/entries/{key}", get(read).put(put).patch(patch).delete(delete))
        .merge(tier::routes())
        .with_state(states)
}

type Document = Path<(String, String)>;
type Entry = Path<(String, String, String)>;

async fn snapshot(
    State(states): State<SharedStates>,
    by: By,
    Path((scope, id)): Document,
    Wanted(then): Wanted<Then>,
) -> Answer {
    let document = DocumentId::new(&scope, &id)?;
    json(match then.moment()? {
        None => states.snapshot(&by, &document).await?,
        Some(moment) => states.snapshot_at(&by, &document, &moment).await?,
    })
}

/// As it was at the revision `at`; without it, as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Then {
    at: Option<u64>,
    epoch: Option<String>,
}

impl Then {
    fn moment(self) -> Result<Option<Moment>, Problem> {
        match (self.at, self.epoch) {
            (None, None) => Ok(None),
            (Some(revision), epoch) => Ok(Some(Moment { revision, epoch })),
            (None, Some(_)) => {
                Err(Problem::new(Code::BadRequest, "the query is wrong: `epoch` belongs to `at`"))
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Since {
    #[serde(default)]
    epoch: String,
    #[serde(default)]
    revision: u64,
    #[serde(default)]
    wait_ms: u64,
}

async fn changes(
    State(states): State<SharedStates>,
    by: By,
    Path((scope, id)): Document,
    Wanted(since): Wanted<Since>,
) -> Answer {
    let document = DocumentId::new(&scope, &id)?;
    let wait = Duration::from_millis(since.wait_ms).min(WAIT_MAX);
    let (epoch, revision) = (&since.epoch, since.revision);
    json(states.wait_for_changes(&by, &document, epoch, revision, wait).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    offset: u64,
    #[serde(default = "page_size")]
    limit: usize,
}

fn page_size() -> usize {
    100
}

#[derive(Serialize)]
struct Entries {
    entries: Vec<HistoryEntry>,
}

async fn history(
    State(states): State<SharedStates>,
    by: By,
    Path((scope, id)): Document,
    Wanted(page): Wanted<Page>,
) -> Answer {
    let document = DocumentId::new(&scope, &id)?;
    let limit = page.limit.clamp(1, 1_000);
    json(Entries { entries: states.history(&by, &document, page.offset, limit).await? })
}

async fn read(
    State(states): State<SharedStates>,
    by: By,
    Path((scope, id, key)): Entry,
    Wanted(then): Wanted<Then>,
) -> Answer {
    let document = DocumentId::new(&scope, &id)?;
    json(match then.moment()? {
        None => states.get(&by, &document, &key).await?,
        Some(moment) => states.get_at(&by, &document, &key, &moment).await?,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    if_revision: Option<u64>,
}

async fn put(
    State(states): State<SharedStates>,
    by: By,
    path: Entry,
    Wanted(condition): Wanted<Condition>,
    Json(value): Json<serde_json::Value>,
) -> Answer {
    apply(&states, &by, path, condition, Operation::Put(value)).await
}

/// By its media type: `application/json-patch+json` is changed step by step (RFC 6902),
/// everything else is merged (RFC 7396).
async fn patch(
    State(states): State<SharedStates>,
    by: By,
    path: Entry,
    Wanted(condition): Wanted<Condition>,
    Patched(operation): Patched,
) -> Answer {
    apply(&states, &by, path, condition, operation).await
}

async fn delete(
    State(states): State<SharedStates>,
    by: By,
    path: Entry,
    Wanted(condition): Wanted<Condition>,
) -> Answer {
    apply(&states, &by, path, condition, Operation::Delete).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transaction {
    steps: Vec<Step>,
}

async fn transact(
    State(states): State<SharedStates>,
    by: By,
    Path((scope, id)): Document,
    Json(transaction): Json<Transaction>,
) -> Answer {
    let document = DocumentId::new(&scope, &id)?;
    json(states.transact(&by, &document, &transaction.steps).await?)
}

async fn restore(
    State(states): State<SharedStates>,
    by: By,
    Path((scope, id)): Document,
    Json(what): Json<Restoration>,
) -> Answer {
    json(states.restore(&by, &DocumentId::new(&scope, &id)?, &what).await?)
}

/// What to copy to the document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Copying {
    from: String,
    keys: BTreeSet<String>,
    #[serde(default)]
    strategy: SyncStrategy,
}

async fn sync(
    State(states): State<SharedStates>,
    by: By,
    Path((scope, id)): Document,
    Json(what): Json<Copying>,
) -> Answer {
    let Copying { from, keys, strategy } = what;
    let (from, to) = (from.parse()?, DocumentId::new(&scope, &id)?);
    json(states.sync(&by, &Transfer { from, to, keys, strategy }).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    from: String,
}

async fn sync_status(
    State(states): State<SharedStates>,
    by: By,
    Path((scope, id)): Document,
    Wanted(source): Wanted<Source>,
) -> Answer {
    let to = DocumentId::new(&scope, &id)?;
    json(states.sync_status(&by, &source.from.parse()?, &to).await?)
}

async fn apply(
    states: &SharedStates,
    by: &By,
    Path((scope, id, key)): Entry,
    condition: Condition,
    operation: Operation,
) -> Answer {
    let document = DocumentId::new(&scope, &id)?;
    json(states.apply(by, &document, &key, operation, condition.if_revision).await?)
}
