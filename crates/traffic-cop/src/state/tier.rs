//! Where a document lives, and how it moves without anybody noticing.
//!
//! A document is `live` (in the memory of its node), `hot`, or `durable`. [`Places`] is a store
//! over the engines of the tiers that knows where each document lives: whoever reads, writes
//! or follows a document names it as ever. What is promised of a move:
//! - epoch, revision, offsets, the revisions of entries and of changes stay what they were;
//! - a write is acknowledged where the document lives, never where it lived: the old place is
//!   fenced before anything is copied;
//! - until the new place is whole and named, the document is the one at the old place. A move
//!   that was cut off is undone by whoever comes next;
//! - what was live and is lost with its node goes on in a new life, from what was kept of it.

mod asking;
mod contents;
mod copied;
mod known;
mod live;
mod mover;
mod place;
mod placement;
mod places;
mod policy;

pub use asking::{LineageEntry, Moved, Simulation, TierNow, Towards, Wish};
pub use mover::Order;
pub use place::{Tier, tier_of};
pub use placement::{Cause, LINEAGE, Move, lineage, partition as lineage_of};
pub use places::{Authority, Engines, Places};
pub use policy::{Decision, IMPORTANCE_MAX, Observed, Policy, Promotion, Thresholds};

#[cfg(test)]
mod tests;
