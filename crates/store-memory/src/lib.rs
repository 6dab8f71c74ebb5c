//! The store in memory: the reference, with fault injection.
//!
//! [`MemoryStore`] keeps every promise of [`::store::Store`] for as long as the process lives, in
//! the plainest way there is; other engines are compared with it. [`Faults`] let the layers
//! above meet what a real engine does on a bad day, reproducibly. [`MemoryFanout`] is the
//! fan-out of a node alone.

mod fanout;
mod faults;
mod partition;
mod store;

pub use crate::store::MemoryStore;
pub use fanout::MemoryFanout;
pub use faults::{Fault, Faults};
