//! The HTTP edge: accepts connections, frames and validates requests, identifies, routes,
//! limits, forwards, records.
//!
//! Start at [`Gateway::start`]. One acceptor deals connections to the least loaded core; each
//! core is a thread with a runtime of its own, and a connection never leaves it. A request
//! takes the path in `exchange`: refuse what is ambiguous → match a mount or a route →
//! identify → charge limits → forward by `soa` → record.
//!
//! Promises:
//! - a service sees only messages that can be read in one way (`http1`); after a refused one,
//!   nothing of the connection is read;
//! - what a service is told about the caller comes from a verified credential, never from the
//!   client's header fields;
//! - [`Gateway::reload`] drops no connection and no request;
//! - every request is recorded once, refused ones included.

mod acceptor;
mod admission;
mod backend;
mod bridged;
mod cache;
mod canary;
mod certificate;
mod charge;
mod compress;
mod config;
mod connection;
mod content;
mod core;
mod cors;
mod deadline;
mod edit;
mod exchange;
mod explain;
mod fields;
mod forward;
mod forward_auth;
mod forwarded;
mod gateway;
mod grpc;
mod h1;
mod h2;
mod identify;
mod load;
mod mirror;
mod mount;
mod opening;
mod overload;
mod path;
mod proxy_protocol;
mod reshape;
mod route;
mod sticky;
mod target;
mod ticket;
mod tls;
mod trace;
mod watch;
mod witness;

pub use admission::Permit;
pub use bridged::{BridgeTold, Broken, BrokenSide};
pub use cache::{CacheConfig, CachePer, CacheReport};
pub use canary::{TrialFigures, TrialReport};
pub use compress::{Coding, CompressConfig};
pub use config::{Auth, Config, ConfigError, RouteConfig, SplitConfig};
pub use cors::CorsConfig;
pub use edit::EditConfig;
pub use explain::{Explanation, Question};
pub use forward_auth::ForwardAuthConfig;
pub use gateway::{Gateway, Parts, StartError};
pub use h1::{Socket, Upgrade};
pub use load::CoreLoad;
pub use mirror::MirrorConfig;
pub use mount::{CoreId, LocalBoxFuture, MakeMounts, Mount, MountPoint};
pub use reshape::ReshapeConfig;
pub use route::{Considered, Routes};
pub use soa::{Body, BoxError};
pub use tls::{ClientAuth, HostCertificate, TlsConfig, TlsStatus};
pub use witness::{Witness, Witnessed};
