//! `/crosstown/v1/state/{scope}/{id}`.

mod tier;

use crate::{
    Parts,
    answer::Answer,
    document::told,
    request::{AnyJson, By, InPath, Json, Patched, Wanted},
};
use aide::axum::{
    ApiRouter,
    routing::{get_with, post_with},
};
use axum::extract::State;
use protocol::{
    Code::{self, BodyTooLarge, Conflict, Lagged, NotFound, StoreFull},
    Problem,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};
use traffic_cop::state::{
    Applied, Changes, DocumentId, Entry, HistoryEntry, Moment, Operation, Restoration,
    SharedStates, Snapshot, Step, SyncStatus, SyncStrategy, Synced, Transacted, Transfer,
};

/// A request for changes waits at most this long.
const WAIT_MAX: Duration = Duration::from_secs(25);

/// What a change of an entry may be refused with.
const CHANGE: &[Code] = &[NotFound, Conflict, BodyTooLarge, StoreFull];

pub(crate) fn routes() -> ApiRouter<Parts> {
    let entry = get_with(read, told("readEntry", "An entry of a document.", &[NotFound, Lagged]))
        .put_with(put, told("putEntry", "Set an entry.", CHANGE))
        .patch_with(patch, told("patchEntry", "Change a part of an entry.", CHANGE))
        .delete_with(delete, told("deleteEntry", "Delete an entry.", CHANGE));
    let sync = get_with(sync_status, told("readSync", "The last copy from another.", &[NotFound]))
        .post_with(sync, told("syncDocument", "Copy entries from another document.", CHANGE));
    ApiRouter::new()
        .api_route(
            "/state/{scope}/{id}",
            get_with(snapshot, told("readDocument", "A document as a whole.", &[Lagged])),
        )
        .api_route(
            "/state/{scope}/{id}/changes",
            get_with(changes, told("readChanges", "Changes since a revision.", &[Lagged])),
        )
        .api_route(
            "/state/{scope}/{id}/history",
            get_with(history, told("readHistory", "All changes that are kept.", &[])),
        )
        .api_route(
            "/state/{scope}/{id}/transactions",
            post_with(transact, told("transact", "Change entries all at once.", CHANGE)),
        )
        .api_route(
            "/state/{scope}/{id}/restore",
            post_with(
                restore,
                told(
                    "restoreDocument",
                    "What it was, again.",
                    &[Conflict, Lagged, BodyTooLarge, StoreFull],
                ),
            ),
        )
        .api_route("/state/{scope}/{id}/sync", sync)
        .api_route("/state/{scope}/{id}/entries/{key}", entry)
        .merge(tier::routes())
}

/// Which document a path names.
#[derive(Deserialize, JsonSchema)]
struct OfDocument {
    /// Whose it is.
    #[schemars(extend("enum" = ["session", "user", "tenant", "pillar", "service"]))]
    scope: String,
    /// Its name in the scope: of a tenant's document, `self`.
    #[schemars(with = "types::PrincipalId")]
    id: String,
}

impl OfDocument {
    fn id(&self) -> Result<DocumentId, Problem> {
        DocumentId::new(&self.scope, &self.id)
    }
}

/// Which entry a path names.
#[derive(Deserialize, JsonSchema)]
struct OfEntry {
    /// Whose the document is.
    #[schemars(extend("enum" = ["session", "user", "tenant", "pillar", "service"]))]
    scope: String,
    /// The document's name in the scope: of a tenant's document, `self`.
    #[schemars(with = "types::PrincipalId")]
    id: String,
    /// The entry's key.
    key: String,
}

impl OfEntry {
    fn document(&self) -> Result<DocumentId, Problem> {
        DocumentId::new(&self.scope, &self.id)
    }
}

async fn snapshot(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfDocument>,
    Wanted(then): Wanted<Then>,
) -> Answer<Json<Snapshot>> {
    let document = of.id()?;
    Ok(Json(match then.moment()? {
        None => states.snapshot(&by, &document).await?,
        Some(moment) => states.snapshot_at(&by, &document, &moment).await?,
    }))
}

/// As it was at the revision `at`; without it, as it is.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Then {
    /// The revision.
    at: Option<u64>,
    /// The life of the document that it is of; the present one, unless it is said.
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

/// From where on.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Since {
    /// The life of the document that `revision` is of.
    #[serde(default)]
    epoch: String,
    /// What the caller has.
    #[serde(default)]
    revision: u64,
    /// How long to wait if nothing has changed, 25 seconds at most.
    #[serde(default)]
    wait_ms: u64,
}

async fn changes(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfDocument>,
    Wanted(since): Wanted<Since>,
) -> Answer<Json<Changes>> {
    let document = of.id()?;
    let wait = Duration::from_millis(since.wait_ms).min(WAIT_MAX);
    let (epoch, revision) = (&since.epoch, since.revision);
    Ok(Json(states.wait_for_changes(&by, &document, epoch, revision, wait).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Page {
    /// Those after this one.
    #[serde(default)]
    offset: u64,
    /// So many at most; more than 1000 are not told.
    #[serde(default = "page_size")]
    limit: usize,
}

fn page_size() -> usize {
    100
}

/// Changes of a document.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "History")]
struct Entries {
    entries: Vec<HistoryEntry>,
}

async fn history(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfDocument>,
    Wanted(page): Wanted<Page>,
) -> Answer<Json<Entries>> {
    let document = of.id()?;
    let limit = page.limit.clamp(1, 1_000);
    let entries = states.history(&by, &document, page.offset, limit).await?;
    Ok(Json(Entries { entries }))
}

async fn read(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfEntry>,
    Wanted(then): Wanted<Then>,
) -> Answer<Json<Entry>> {
    let document = of.document()?;
    Ok(Json(match then.moment()? {
        None => states.get(&by, &document, &of.key).await?,
        Some(moment) => states.get_at(&by, &document, &of.key, &moment).await?,
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Condition {
    /// Only if that is the revision of its latest change; 0 demands that there is none.
    if_revision: Option<u64>,
}

async fn put(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfEntry>,
    Wanted(condition): Wanted<Condition>,
    AnyJson(value): AnyJson<serde_json::Value>,
) -> Answer<Json<Applied>> {
    apply(&states, &by, &of, condition, Operation::Put(value)).await
}

/// By its media type: `application/json-patch+json` is changed step by step (RFC 6902),
/// everything else is merged (RFC 7396).
async fn patch(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfEntry>,
    Wanted(condition): Wanted<Condition>,
    Patched(operation): Patched,
) -> Answer<Json<Applied>> {
    apply(&states, &by, &of, condition, operation).await
}

async fn delete(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfEntry>,
    Wanted(condition): Wanted<Condition>,
) -> Answer<Json<Applied>> {
    apply(&states, &by, &of, condition, Operation::Delete).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Transaction {
    /// What to do, in this order.
    steps: Vec<Step>,
}

async fn transact(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfDocument>,
    Json(transaction): Json<Transaction>,
) -> Answer<Json<Transacted>> {
    let document = of.id()?;
    Ok(Json(states.transact(&by, &document, &transaction.steps).await?))
}

async fn restore(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfDocument>,
    Json(what): Json<Restoration>,
) -> Answer<Json<Transacted>> {
    Ok(Json(states.restore(&by, &of.id()?, &what).await?))
}

/// What to copy to the document.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Copying {
    /// From where: `scope/id`.
    from: String,
    /// Which entries.
    keys: BTreeSet<String>,
    /// What becomes of what others wrote.
    #[serde(default)]
    strategy: SyncStrategy,
}

async fn sync(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfDocument>,
    Json(what): Json<Copying>,
) -> Answer<Json<Synced>> {
    let Copying { from, keys, strategy } = what;
    let (from, to) = (from.parse()?, of.id()?);
    Ok(Json(states.sync(&by, &Transfer { from, to, keys, strategy }).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Source {
    /// The other document: `scope/id`.
    from: String,
}

async fn sync_status(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfDocument>,
    Wanted(source): Wanted<Source>,
) -> Answer<Json<SyncStatus>> {
    let to = of.id()?;
    Ok(Json(states.sync_status(&by, &source.from.parse()?, &to).await?))
}

async fn apply(
    states: &SharedStates,
    by: &By,
    of: &OfEntry,
    condition: Condition,
    operation: Operation,
) -> Answer<Json<Applied>> {
    let document = of.document()?;
    Ok(Json(states.apply(by, &document, &of.key, operation, condition.if_revision).await?))
}
