//! What is kept of where a document lives, in a small partition beside it: its place now, and
//! where it moved before.

use crate::{
    state::tier::{Tier, place::Place},
    storage::{self, Stored},
};
use protocol::Problem;
use serde::{Deserialize, Serialize};
use store::{Error, Key, Kind, Partition, StreamName};
use types::{PrincipalId, Timestamp};

const KIND: Kind = Kind::new("state-tier");
/// The stream of a document's moves.
pub const LINEAGE: StreamName = StreamName::new("lineage");
/// Moves that are kept.
pub(super) const LINEAGE_MAX: u64 = 1_000;

/// Where the place of the document in `document` is kept, and the stream of its moves.
///
/// # Errors
/// None for the partition of a document.
pub fn partition(document: &Partition) -> Result<Partition, Error> {
    Partition::new(document.tenant().clone(), KIND, document.id())
}

pub(super) fn key() -> Result<Key, Error> {
    Key::new("place")
}

/// Why a document moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "TierCause")]
pub enum Cause {
    /// Somebody asked for it.
    Request,
    /// The policy decided so.
    Policy,
    /// Its node ended, and what is live with it.
    Shutdown,
    /// What was there is lost; the document began a new life from what was kept.
    Lost,
}

/// Where a document lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Placement {
    pub(super) place: Place,
    /// The number of the next place.
    pub(super) next: u64,
    /// Whether the policy leaves it where it is.
    #[serde(default)]
    pub(super) pinned: bool,
    /// Why it is here.
    pub(super) cause: Option<Cause>,
    #[serde(default)]
    pub(super) reason: String,
    pub(super) by: Option<PrincipalId>,
    /// Since when.
    pub(super) at: Option<Timestamp>,
    /// What it can be made of again if its place is lost.
    pub(super) kept: Option<Place>,
    /// Places that are to be emptied.
    #[serde(default)]
    pub(super) left: Vec<Place>,
    /// A move that is under way.
    pub(super) moving: Option<Moving>,
}

impl Stored for Placement {
    const VERSION: u8 = 1;
}

impl Placement {
    /// Of a document that never moved.
    pub(super) fn first(document: &Partition) -> Self {
        Self {
            place: Place::first(document),
            next: 1,
            pinned: false,
            cause: None,
            reason: String::new(),
            by: None,
            at: None,
            kept: None,
            left: Vec::new(),
            moving: None,
        }
    }
}

/// A move that has begun and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Moving {
    pub(super) tier: Tier,
    pub(super) generation: u64,
    pub(super) at: Timestamp,
}

/// A move as its stream keeps it, and as it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "TierMove")]
pub struct Move {
    /// Where the document was.
    pub from: Tier,
    /// Where it has been since.
    pub to: Tier,
    /// The how-manieth place that is.
    pub generation: u64,
    /// Who wanted it.
    pub cause: Cause,
    /// Why, in words.
    pub reason: String,
    /// Who asked for it, if somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<PrincipalId>,
    /// When, in milliseconds since 1970 UTC.
    pub at: Timestamp,
    /// The life of the document since.
    pub epoch: String,
    /// The document's revision at which it moved; of a lost one, what it goes on from.
    pub revision: u64,
    /// How many entries it had.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// What the policy made of it, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<u32>,
}

impl Stored for Move {
    const VERSION: u8 = 1;
}

/// A move as the stream of moves tells it.
///
/// # Errors
/// `internal` if it cannot be read.
pub fn lineage(entry: &store::Entry) -> Result<Move, Problem> {
    storage::decode(&entry.value)
}
