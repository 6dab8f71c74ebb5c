//! The edge over real sockets: what a client sees, and what a service is sent.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod balance;
mod connections;
mod content;
mod dns;
mod fields;
mod forward_auth;
mod forwarded;
mod framing;
mod h2_services;
mod http2;
mod proxy;
mod proxy_protocol;
mod resilience;
mod routing;
mod support;
mod tls;
mod transform;
mod upstream_tls;
