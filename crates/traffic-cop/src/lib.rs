//! Who may drive, where and how fast.
//!
//! - [`identity`]: who calls, proved by a credential;
//! - [`session`]: sessions that survive connections and restarts;
//! - [`connections`]: who is connected, and what is to be done to them;
//! - [`channels`] and [`totals`]: what is followed, and what passes;
//! - [`traces`]: what passes through some connections, shown for a time;
//! - [`state`]: documents that services, users and sessions share, in one order for all;
//! - [`limit`]: rate limits by GCRA, all or nothing over several rules;
//! - [`analytics`]: traffic counters and latency histograms.
//!
//! Post Office and Conductor may ask it about sessions; it never depends on them.

pub mod analytics;
pub mod channels;
pub mod connections;
#[cfg(test)]
mod counting;
pub mod genesis;
pub mod identity;
pub mod limit;
mod secret;
pub mod session;
pub mod state;
mod storage;
pub mod totals;
pub mod traces;

pub use secret::{hash as secret_hash, matches as secret_matches, random as random_secret};
pub use storage::problem as store_problem;
