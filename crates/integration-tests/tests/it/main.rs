//! The whole system, through its public faces.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod affinity;
mod analytics;
mod changes;
mod cli;
mod clients;
mod degraded;
mod durability;
mod explain;
mod faults;
mod floods;
mod grpc;
mod guides;
mod histories;
mod limits;
mod nodes;
mod openapi;
mod overload;
mod proxies;
mod realms;
mod registration;
mod revocation;
mod rolling;
mod sessions;
mod sockets;
mod state;
mod supabase;
mod tenants;
mod tls;
