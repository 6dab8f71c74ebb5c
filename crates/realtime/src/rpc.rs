//! Methods that clients call on the socket.
//!
//! | method | argument | answer |
//! |---|---|---|
//! | `state.get` | `{document, key?, at_revision?, epoch?}` | the document, or one entry; with `at_revision` as it was then |
//! | `state.put` | `{document, key, value, if_revision?}` | `{epoch, revision, value}` |
//! | `state.patch` | `{document, key, value, if_revision?}`; `value` is merged; or `ops` in its place, steps of a JSON Patch | as above |
//! | `state.transact` | `{document, steps}`; each `{op, key, value?, if_revision?}` | `{epoch, revision, entries}` |
//! | `state.restore` | `{document, revision, epoch?, keys?, if_revision?}` | `{epoch, revision, entries}`: what had to be changed |
//! | `state.sync` | `{from, to, keys, strategy?}` | `{from_revision, epoch, revision, synced, unchanged, missing, conflicts}` |
//! | `state.sync_status` | `{from, to}` | the last copy between the two |
//! | `state.delete` | `{document, key, if_revision?}` | `{epoch, revision}` |
//! | `state.changes` | `{document, epoch, revision}` | `{epoch, revision, changes}` |
//! | `state.history` | `{document, offset?, limit?}` | `{entries}` |
//! | `state.promote`, `state.demote` | `{document, tier?, reason?}` | `{moved, wanted, tier, generation, survives}` |
//! | `state.tier` | `{document}` | where the document is kept, and why |
//! | `state.lineage` | `{document, offset?, limit?}` | `{moves}` |
//! | `mailbox.send` | `{to, data, id?, ttl?}` | `{letter, id, repeated}` |
//! | `mailbox.list`, `mailbox.dead` | `{of?, after?}`; `of` is the caller's own unless it is said | `{letters}` |
//! | `mailbox.ack` | `{of?, letter}` | `{}` |
//! | `mailbox.refuse` | `{of?, letter, why?}` | `{}` |
//! | `mailbox.revive` | `{of?, letter}` | `{letter}` |
//! | `session.get` | – | the connection's session |
//! | `traffic.report` | `{range?, from?, to?}` | the tenant's traffic |
//!
//! An error's code is the HTTP status that the same call by HTTP would answer with; its
//! message is the problem document, as JSON.

mod mailbox;
mod tier;

use crate::Parts;
use protocol::{Code, Problem};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value as Json, json};
use std::{collections::BTreeSet, sync::Arc};
use traffic_cop::{
    analytics::{Ask, Period},
    state::{DocumentId, JsonPatch, Moment, Operation, Restoration, Step, SyncStrategy, Transfer},
};
use types::{Caller, SessionId};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Write {
    document: String,
    key: String,
    #[serde(default)]
    value: Json,
    ops: Option<JsonPatch>,
    if_revision: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transaction {
    document: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    document: String,
    key: Option<String>,
    at_revision: Option<u64>,
    epoch: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Restore {
    document: String,
    revision: u64,
    epoch: Option<String>,
    keys: Option<BTreeSet<String>>,
    if_revision: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Copying {
    from: String,
    to: String,
    keys: BTreeSet<String>,
    #[serde(default)]
    strategy: SyncStrategy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Copied {
    from: String,
    to: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    document: String,
    key: String,
    if_revision: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Since {
    document: String,
    #[serde(default)]
    epoch: String,
    #[serde(default)]
    revision: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct History {
    document: String,
    #[serde(default)]
    offset: u64,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Traffic {
    range: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

/// Calls `method` for `caller` on its `session`.
pub(crate) async fn call(
    parts: Parts,
    caller: Arc<Caller>,
    session: SessionId,
    method: String,
    data: Option<String>,
) -> Result<Json, Problem> {
    let data = data.as_deref().unwrap_or("{}");
    let states = &parts.states;
    // On this socket the caller acts within the session that the connection is bound to.
    let caller = Caller { session: Some(session), ..(*caller).clone() };
    let caller = &caller;
    match method.as_str() {
        "state.get" => {
            let Read { document, key, at_revision, epoch } = argument(data)?;
            let document: DocumentId = document.parse()?;
            let moment = match (at_revision, epoch) {
                (None, None) => None,
                (Some(revision), epoch) => Some(Moment { revision, epoch }),
                (None, Some(_)) => {
                    let detail = "the argument is wrong: `epoch` belongs to `at_revision`";
                    return Err(Problem::new(Code::BadRequest, detail));
                }
            };
            match (key, moment) {
                (None, None) => json(states.snapshot(caller, &document).await?),
                (None, Some(then)) => json(states.snapshot_at(caller, &document, &then).await?),
                (Some(key), None) => json(states.get(caller, &document, &key).await?),
                (Some(key), Some(then)) => {
                    json(states.get_at(caller, &document, &key, &then).await?)
                }
            }
        }
        "state.put" | "state.patch" => {
            let Write { document, key, value, ops, if_revision } = argument(data)?;
            let operation = match (method.as_str(), ops) {
                ("state.put", None) => Operation::Put(value),
                ("state.put", Some(_)) => {
                    let detail = "the argument is wrong: `ops` is for `state.patch`";
                    return Err(Problem::new(Code::BadRequest, detail));
                }
                (_, None) => Operation::Patch(value),
                (_, Some(patch)) if value.is_null() => Operation::JsonPatch(patch),
                (_, Some(_)) => {
                    let detail = "the argument is wrong: give either `value` or `ops`";
                    return Err(Problem::new(Code::BadRequest, detail));
                }
            };
            json(states.apply(caller, &document.parse()?, &key, operation, if_revision).await?)
        }
        "state.transact" => {
            let Transaction { document, steps } = argument(data)?;
            json(states.transact(caller, &document.parse()?, &steps).await?)
        }
        "state.restore" => {
            let Restore { document, revision, epoch, keys, if_revision } = argument(data)?;
            let what = Restoration { revision, epoch, keys, if_revision };
            json(states.restore(caller, &document.parse()?, &what).await?)
        }
        "state.sync" => {
            let Copying { from, to, keys, strategy } = argument(data)?;
            let transfer = Transfer { from: from.parse()?, to: to.parse()?, keys, strategy };
            json(states.sync(caller, &transfer).await?)
        }
        "state.sync_status" => {
            let Copied { from, to } = argument(data)?;
            json(states.sync_status(caller, &from.parse()?, &to.parse()?).await?)
        }
        "state.delete" => {
            let Delete { document, key, if_revision } = argument(data)?;
            let operation = Operation::Delete;
            json(states.apply(caller, &document.parse()?, &key, operation, if_revision).await?)
        }
        "state.changes" => {
            let Since { document, epoch, revision } = argument(data)?;
            json(states.changes(caller, &document.parse()?, &epoch, revision).await?)
        }
        "state.history" => {
            let History { document, offset, limit } = argument(data)?;
            let limit = limit.unwrap_or(100).clamp(1, 1_000);
            let entries = states.history(caller, &document.parse()?, offset, limit).await?;
            Ok(json!({ "entries": json(entries)? }))
        }
        "session.get" => match parts.sessions.get(&caller.tenant, session).await? {
            Some(session) => json(session),
            None => Err(Problem::new(Code::NotFound, "the session has ended")),
        },
        "traffic.report" => {
            let Traffic { range, from, to } = argument(data)?;
            let now = parts.clock.now();
            let period = Period::read(range.as_deref(), from.as_deref(), to.as_deref(), now);
            let period = period.map_err(|detail| Problem::new(Code::BadRequest, detail))?;
            let ask = Ask::new(period, Some(caller.tenant.clone()));
            json(parts.analytics.report(&ask, now).await)
        }
        "state.promote" | "state.demote" | "state.tier" | "state.lineage" => {
            tier::call(states, caller, &method, data).await
        }
        other => {
            let of_mailbox = other.strip_prefix("mailbox.");
            let answer = match of_mailbox {
                Some(name) => mailbox::call(&parts.mailboxes, caller, name, data).await,
                None => None,
            };
            let missing =
                || Problem::new(Code::NotImplemented, format!("there is no method `{other}`"));
            answer.ok_or_else(missing)?
        }
    }
}

fn argument<T: DeserializeOwned>(data: &str) -> Result<T, Problem> {
    serde_json::from_str(data)
        .map_err(|error| Problem::new(Code::BadRequest, format!("the argument is wrong: {error}")))
}

fn json(answer: impl serde::Serialize) -> Result<Json, Problem> {
    serde_json::to_value(answer)
        .map_err(|_| Problem::new(Code::Internal, "the answer cannot be written"))
}
