//! How an engine is, and what its callers are told while it is not well.
//!
//! A [`Gauge`] judges an engine by the calls that it answers: well, slow, read-only or away.
//! [`GuardedStore`] and [`GuardedFanout`] stand before an engine and act on it:
//! - a store that has answered nothing for [`Config::patience`] is **away**: its callers are
//!   refused at once, with nothing sent, until it answers a probe;
//! - a store that is **read-only** or full goes on being read; writes get its refusal;
//! - a store that is **slow** works on; the gauge says so;
//! - at most [`Config::calls_max`] calls are under way; the rest is refused at once;
//! - while a fan-out is away, publications wait for it, up to a number and a time.
//!
//! An engine within the process is never away: it is waited for. The tasks that probe are
//! [`GuardedStore::run`] and [`GuardedFanout::run`].

mod config;
mod fanout;
mod gauge;
mod store;

pub use crate::{
    config::Config,
    fanout::GuardedFanout,
    gauge::{Condition, Gauge, Report},
    store::GuardedStore,
};
