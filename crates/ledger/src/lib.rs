//! Ownership over a store: written once, for every layer and every engine.
//!
//! - The 1,024 buckets of a store fall into 64 [`Shard`]s, and a shard has one owner at a time,
//!   which holds its [`Lease`] ([`acquire`], [`Lease::renew`]). Nodes agree on who should own
//!   what by their registrations alone ([`Nodes`]), and a [`Keeper`] takes and gives up shards
//!   accordingly.
//! - A lease runs out while its owner sleeps, so holding one is no protection. An owner
//!   therefore [`Lease::open`]s a partition before it reads: that raises the partition's fence
//!   to the lease's epoch, and every commit through [`Owned`] repeats it. A former owner's
//!   commit, however late, is refused by the store.
//! - What belongs to another partition is appended to the partition's own [`outbox`] in the
//!   same commit, and the shard's owner carries it over ([`Relay`]): in order, and once.
//!
//! The protocol is model-checked in `tests/model.rs`, with owners that are paused and commits
//! that arrive late; without the fence the model finds a lost write.

mod keeper;
mod lease;
mod nodes;
pub mod outbox;
mod owned;
mod relay;
mod shard;

pub use keeper::{Keeper, Work};
pub use lease::{HELD_FOR, Lease, LeaseError, RENEW_EVERY, STOPS_AFTER, acquire};
pub use nodes::{NodeId, Nodes, REGISTERED_FOR};
pub use outbox::Letter;
pub use owned::Owned;
pub use relay::{Relay, Relayed};
pub use shard::{SHARDS, Shard};
