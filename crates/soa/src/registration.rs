//! Instances that register themselves, and stay for as long as their heartbeats come.
//!
//! A registration is a record in the store, in a partition of its service, which expires by the
//! store's clock unless a heartbeat writes it anew. Every node follows the partitions of the
//! services that it serves ([`Registry::run`]), so a restart, or another node of the same store,
//! knows the same instances.

mod record;
mod registry;
mod roster;

pub use record::{NewInstance, Registered};
pub use registry::Registry;
