//! What callers ask about the tier of a document.

use crate::{
    state::{
        CHANGES, ChangeRecord, DocumentId, EntryRecord, States,
        past::span,
        permission::forbidden,
        tier::{
            Cause, LINEAGE, Move, Order, Places, Tier,
            known::Activity,
            live::NoRoom,
            placement::{self, Placement},
            policy::{self, Decision, Observed, Policy},
        },
    },
    storage,
};
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::sync::Arc;
use store::{Error, Partition, Survives};
use types::{Caller, PrincipalId, Timestamp};

/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 256;
/// Documents that are simulated at once.
const OBSERVED_MAX: usize = 256;

/// Towards what a document is to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Towards {
    /// From live to hot to durable.
    Durable,
    /// The other way.
    Live,
}

/// What is asked for. Read from `{"tier": "hot", "reason": "…"}`, both of which may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "TierWish")]
pub struct Wish {
    /// The tier; the next one, unless it is named.
    pub tier: Option<Tier>,
    /// Why, in words: 256 bytes at most.
    pub reason: String,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "TierMoved")]
pub struct Moved {
    /// Whether the document has moved; else it was there.
    pub moved: bool,
    /// The tier that was wanted.
    pub wanted: Tier,
    /// The tier that it is in: hot in place of live, where nodes share their stores.
    pub tier: Tier,
    /// The how-manieth place of the document that is.
    pub generation: u64,
    /// What a write of the document survives that is acknowledged from now on.
    pub survives: &'static str,
}

/// Where a document is, and why.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct TierNow {
    /// The tier.
    pub tier: Tier,
    /// The how-manieth place of the document it is; 0: where it was made.
    pub generation: u64,
    /// What an acknowledged write survives there: `nothing`, `process`, `power_loss`.
    pub survives: &'static str,
    /// Whether the policy leaves it there.
    pub pinned: bool,
    /// Since when, in milliseconds since 1970 UTC; missing if it never moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Who wanted it there; missing if it never moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Why, in words.
    #[schemars(default)]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Who asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<PrincipalId>,
    /// What the configured policy would have now, and why; whether it is carried out, `policy`
    /// tells.
    pub explain: Decision,
    /// Whether documents are moved by the policy.
    pub policy: bool,
}

/// A move with its place in the lineage.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct LineageEntry {
    /// Without gaps from 1.
    pub offset: u64,
    /// The move.
    #[serde(flatten)]
    pub moved: Move,
}

/// What is to be simulated. Read from `{"policy": …, "observed": […], "tier": "hot"}`, all of which
/// may be missing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "TierSimulation")]
pub struct Simulation {
    /// The policy; the configured one, unless it is given. What it does not name has its
    /// default.
    pub policy: Option<Policy>,
    /// What to decide about, one after the other, each in the tier that the one before led to;
    /// at most 256. None: the document as it is.
    pub observed: Vec<Observed>,
    /// The tier to begin in; the document's, unless it is named.
    pub tier: Option<Tier>,
}

impl States {
    /// These documents, each of which may move between the tiers of `places`, which is also the
    /// store that they are in.
    #[must_use]
    pub fn with_places(self, places: Arc<Places>) -> Self {
        Self { store: places.clone(), places: Some(places), ..self }
    }

    /// Documents that are live on this node, and their bytes, or more than that.
    #[must_use]
    pub fn live(&self) -> (u64, u64) {
        self.places.as_ref().map_or((0, 0), |places| places.live())
    }

    /// What is live on this node moves to where it is kept. Once nobody writes any more.
    pub async fn settle_down(&self) {
        if let Some(places) = &self.places {
            places.settle_down().await;
        }
    }

    fn places(&self) -> Result<&Arc<Places>, Problem> {
        let detail = "documents of stores that nodes share stay where they are, unless all nodes \
             are configured with `state.promotion.shared = true`";
        self.places.as_ref().ok_or_else(|| Problem::new(Code::NotImplemented, detail))
    }

    /// The partition of a document all of which the caller may write.
    fn governed(&self, caller: &Caller, id: &DocumentId) -> Result<Partition, Problem> {
        let partition = id.writable_by(caller)?;
        match self.rules.may_write_all(caller, partition.id()) {
            true => Ok(partition),
            false => Err(forbidden("*")),
        }
    }

    /// Moves a document to another tier. Whoever reads, writes or follows it does not notice.
    ///
    /// # Errors
    /// `forbidden` unless the caller may write all of the document; `bad_request` for a tier that
    /// does not lie in that direction; `not_implemented` where documents cannot move; or those
    /// of the store: then it is where it was, or, if the store does not answer, where it was to be.
    pub async fn relocate(
        &self,
        caller: &Caller,
        id: &DocumentId,
        towards: Towards,
        wish: Wish,
    ) -> Result<Moved, Problem> {
        let document = self.governed(caller, id)?;
        let places = self.places()?;
        if wish.reason.len() > REASON_BYTES_MAX || wish.reason.chars().any(char::is_control) {
            let detail = "a reason is at most 256 bytes without control characters";
            return Err(Problem::new(Code::BadRequest, detail));
        }
        let now = places.placement(&document).await.map_err(storage::problem)?.place;
        let wanted = match (towards, now.tier, wish.tier) {
            (_, _, Some(tier)) => tier,
            (Towards::Durable, Tier::Live, None) => Tier::Hot,
            (Towards::Durable, Tier::Hot | Tier::Durable, None) => Tier::Durable,
            (Towards::Live, Tier::Durable, None) => Tier::Hot,
            (Towards::Live, Tier::Hot | Tier::Live, None) => Tier::Live,
        };
        let against = match towards {
            Towards::Durable => wanted < now.tier,
            Towards::Live => wanted > now.tier,
        };
        if against {
            let (now, wanted) = (now.tier.as_str(), wanted.as_str());
            let detail = format!("the document is {now}, and {wanted} lies the other way");
            return Err(Problem::new(Code::BadRequest, detail).member("tier", now));
        }
        let score = self.explained(places, &document).await?.1.score;
        let order = Order {
            to: wanted,
            cause: Cause::Request,
            reason: wish.reason,
            by: Some(caller.principal.id.clone()),
            score: Some(score),
        };
        let moved = places.relocate(&document, &order).await.map_err(|error| {
            let is_live = matches!(&error, Error::Full { source } if source.is::<NoRoom>());
            match is_live {
                true => Problem::new(Code::StoreFull, NoRoom.to_string()),
                false => storage::problem(error),
            }
        })?;
        let place = places.placement(&document).await.map_err(storage::problem)?.place;
        Ok(Moved {
            moved: moved.is_some(),
            wanted,
            tier: place.tier,
            generation: place.generation,
            survives: survives(places, place.tier),
        })
    }

    /// Has the policy leave a document where it is, or no longer.
    ///
    /// # Errors
    /// As [`Self::relocate`].
    pub async fn pin(&self, caller: &Caller, id: &DocumentId, pinned: bool) -> Result<(), Problem> {
        let document = self.governed(caller, id)?;
        self.places()?.pin(&document, pinned).await.map_err(storage::problem)
    }

    /// Where a document is, and what the policy has to say about it.
    ///
    /// # Errors
    /// `forbidden`, `not_implemented` where documents cannot move, or those of the store.
    pub async fn tier(&self, caller: &Caller, id: &DocumentId) -> Result<TierNow, Problem> {
        let document = id.readable_by(caller)?;
        let places = self.places()?;
        let (placement, explain) = self.explained(places, &document).await?;
        Ok(TierNow {
            tier: placement.place.tier,
            generation: placement.place.generation,
            survives: survives(places, placement.place.tier),
            pinned: placement.pinned,
            since: placement.at,
            cause: placement.cause,
            reason: placement.reason,
            by: placement.by,
            explain,
            policy: self.config.promotion.enabled,
        })
    }

    /// The moves of a document from `offset` on (1 is the first), at most `limit`; the last 1,000
    /// are kept.
    ///
    /// # Errors
    /// `lagged` if `offset` is no longer kept, with the member `first`; else as [`Self::tier`].
    pub async fn lineage(
        &self,
        caller: &Caller,
        id: &DocumentId,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<LineageEntry>, Problem> {
        let document = id.readable_by(caller)?;
        let of = placement::partition(&document).map_err(storage::problem)?;
        let read = self.store.read(&of, &LINEAGE, offset.max(1), limit.max(1)).await;
        let entries = read.map_err(|error| {
            let first = if let Error::Trimmed { first } = error { Some(first) } else { None };
            let problem = storage::problem(error);
            first.into_iter().fold(problem, |problem, first| problem.member("first", first))
        })?;
        let told = |entry: &store::Entry| {
            Ok(LineageEntry { offset: entry.sequence, moved: super::lineage(entry)? })
        };
        entries.iter().map(told).collect()
    }

    /// What a policy would decide. Nothing moves.
    ///
    /// # Errors
    /// `bad_request` for a policy that cannot be meant; else as [`Self::tier`].
    pub async fn simulate(
        &self,
        caller: &Caller,
        id: &DocumentId,
        what: &Simulation,
    ) -> Result<Vec<Decision>, Problem> {
        let document = id.readable_by(caller)?;
        let refuse = |detail: String| Err(Problem::new(Code::BadRequest, detail));
        let policy = what.policy.as_ref().unwrap_or(&self.config.promotion.policy);
        if let Err(why) = policy.check() {
            return refuse(format!("`policy`: {why}"));
        }
        if what.observed.len() > OBSERVED_MAX {
            return refuse(format!("at most {OBSERVED_MAX} are observed at once"));
        }
        let places = self.places()?;
        let (placement, explain) = self.explained(places, &document).await?;
        let mut tier = what.tier.unwrap_or(placement.place.tier);
        let observed = match &*what.observed {
            [] => std::slice::from_ref(&explain.observed),
            observed => observed,
        };
        let decide = |observed| {
            let decision = policy::decide(observed, policy, tier);
            tier = decision.tier;
            decision
        };
        Ok(observed.iter().map(decide).collect())
    }

    /// A document's placement, and what the policy has to say about it.
    async fn explained(
        &self,
        places: &Places,
        document: &Partition,
    ) -> Result<(Placement, Decision), Problem> {
        let placement = places.placement(document).await.map_err(storage::problem)?;
        let seen = places.peek(document).await.map_err(storage::problem)?;
        let now = self.clock.now();
        let ago = |then: Timestamp| now.0.saturating_sub(then.0);
        let values = seen.values.iter().map(|(_, value)| value);
        let declared = self.rules.importance(document.id());
        let Activity { reads_per_minute, writes_per_minute } = places.activity(document);
        let observed = Observed {
            bytes: seen.bytes,
            entries: seen.values.len() as u64,
            complexity: policy::complexity(values),
            importance: declared.unwrap_or_else(|| policy::importance_of(document.id())),
            reads_per_minute,
            writes_per_minute,
            unchanged_ms: seen.changed.map(ago),
            here_ms: placement.at.map(ago),
        };
        let tier = placement.place.tier;
        let decision = policy::decide(&observed, &self.config.promotion.policy, tier);
        Ok((placement, decision))
    }

    /// Sees to it that not too much is live, and has the policy decide about documents that this
    /// node has served, where that is configured; until dropped.
    pub async fn promote_by_policy(&self) {
        let promotion = &self.config.promotion;
        let Some(places) = &self.places else { return };
        let mut pace = tokio::time::interval(promotion.every);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            if let Err(error) = places.relieve().await {
                tracing::warn!(%error, "there is more live than there may be");
            }
            let served = if promotion.enabled { places.served() } else { Vec::new() };
            for document in served {
                if let Err(problem) = self.consider(places, &document).await {
                    tracing::warn!(%document, problem.detail, "the policy was not carried out");
                }
            }
        }
    }

    /// Moves one document to where the policy has it.
    pub(super) async fn consider(
        &self,
        places: &Places,
        document: &Partition,
    ) -> Result<Option<Move>, Problem> {
        let (placement, decision) = self.explained(places, document).await?;
        let here = placement.place.tier;
        if placement.pinned || places.serving(decision.tier) == here {
            return Ok(None);
        }
        let order = Order {
            to: decision.tier,
            cause: Cause::Policy,
            reason: decision.reasons.join("; "),
            by: None,
            score: Some(decision.score),
        };
        places.relocate(document, &order).await.map_err(storage::problem)
    }
}

fn survives(places: &Places, tier: Tier) -> &'static str {
    match places.engines.survives(tier) {
        Survives::Nothing => "nothing",
        Survives::Process => "process",
        Survives::PowerLoss => "power_loss",
    }
}

/// A document as the policy sees it.
pub(super) struct Seen {
    values: Vec<(String, Json)>,
    bytes: u64,
    /// When it last changed.
    changed: Option<Timestamp>,
}

impl Places {
    pub(super) fn serving(&self, tier: Tier) -> Tier {
        self.engines.serving(tier)
    }

    /// What is kept of a document's place, once what was cut off is put right.
    pub(super) async fn placement(&self, document: &Partition) -> Result<Placement, Error> {
        let _turn = self.turn(document).await;
        self.settle(document).await?;
        let (_, placement) = self.load(document).await?;
        Ok(placement.unwrap_or_else(|| Placement::first(document)))
    }

    async fn pin(&self, document: &Partition, pinned: bool) -> Result<(), Error> {
        let _turn = self.turn(document).await;
        self.settle(document).await?;
        let (revision, placement) = self.load(document).await?;
        let mut placement = placement.unwrap_or_else(|| Placement::first(document));
        if placement.pinned == pinned {
            return Ok(());
        }
        placement.pinned = pinned;
        self.save(document, revision, &placement, None).await.map(|_| ())
    }

    /// A document's values and last change, which does not count as reading it. It may move or
    /// change meanwhile: then it is not seen as it was at one moment.
    async fn peek(&self, document: &Partition) -> Result<Seen, Error> {
        let at = self.placement(document).await?.place.of(document)?;
        let damaged = |_| Error::corrupt(format!("an entry of {document} cannot be read"));
        let mut seen = Seen { values: Vec::new(), bytes: 0, changed: None };
        let mut after = None;
        loop {
            let page = self.store.scan(&at, b"", after.as_ref(), 1_000).await?;
            for (key, record) in page.records {
                let record = super::copied::record(record)?;
                let EntryRecord(value) = storage::decode(&record.value).map_err(damaged)?;
                // Without the byte of its version.
                seen.bytes += (key.as_bytes().len() + record.value.len() - 1) as u64;
                let name = String::from_utf8_lossy(key.as_bytes()).into_owned();
                seen.values.push((name, value));
                after = Some(key);
            }
            if !page.more {
                break;
            }
        }
        let (first, last) = span(self.store.head(&at).await?.as_ref());
        if first <= last
            && let Ok(entries) = self.store.read(&at, &CHANGES, last, 1).await
            && let Some(entry) = entries.into_iter().next()
        {
            let entry = super::copied::entry(entry)?;
            let change: ChangeRecord = storage::decode(&entry.value).map_err(damaged)?;
            seen.changed = Some(change.at);
        }
        Ok(seen)
    }
}
