//! The call path to a service: choose an instance, forward the request, stream the answer.
//!
//! [`Services`] is what all cores of a node share: the compiled configuration and the load of
//! each instance. A [`Pool`] belongs to one core and holds its connections; [`Pool::call`] is
//! the whole path. A connection of HTTP/1 is driven by the task that uses it, so a call costs no task and
//! no wake-up of its own.
//!
//! Promises:
//! - a request is sent twice only if the first attempt was surely not processed (no byte of it
//!   left the node, or an instance of HTTP/2 said so), or if the service is configured for it and
//!   the request may be: see [`Terms::repeatable`];
//! - a connection is used again only after its answer was read to the end;
//! - an answer cut short by the service reaches the client as an error, never as an end;
//! - bodies stream in both directions, with the slower side setting the pace.
//!
//! A service of HTTP/2 is called the same way, over connections that many requests share and
//! that have a task each: see [`Protocol::H2`].

mod added;
mod attempts;
mod balance;
mod body;
mod call;
mod check;
mod config;
mod dns;
mod error;
mod fetch;
mod found;
pub mod grpc;
mod guard;
mod h2;
mod hop;
mod instance;
mod link;
mod pool;
mod registration;
mod service;
mod target;
mod tls;
mod tunnel;

pub use added::{Added, Alike};
pub use balance::key_hash;
pub use body::{Answer, Body, BoxError, Inbound, Inflow, InflowFailure, LocalBody};
pub use call::{Answered, Reply, TIMEOUT, Terms};
pub use check::{Checks, Probe, probe};
pub use config::{
    Balance, BreakerConfig, BudgetConfig, ConcurrencyConfig, Config, ConfigError, DnsConfig,
    EjectionConfig, GrpcCheck, HashKey, HealthConfig, HedgeAfter, HedgeConfig, HostHeader,
    InstanceConfig, Priority, Protocol, RegistrationConfig, RetryConfig, Scheme, ServiceConfig,
};
pub use dns::Lookups;
pub use error::Error;
pub use fetch::fetch;
pub use found::Origin;
pub use guard::GuardReport;
pub use hop::strip_hop_by_hop;
pub use instance::{Condition, Instance};
pub use pool::Pool;
pub use registration::{NewInstance, Registered, Registry};
pub use service::{Score, Service, Services};
pub use target::Reach;
pub use tls::TlsConfig;
pub use tunnel::{Tunnel, splice};
