//! Real servers for tests and benchmarks.
//!
//! Each listens on free loopback ports, keeps its data in a folder of its own and ends, by
//! process id, when it is dropped; so tests run in parallel. What cannot be started fails the
//! test: nothing is skipped.

mod authority;
mod dns;
mod nginx;
mod ports;
mod postgres;
mod process;
mod proxy;
mod redis;
mod shared;

pub use authority::{Authority, Issued};
pub use dns::{Dns, Told};
pub use nginx::Nginx;
pub use ports::free_ports;
pub use postgres::{PASSWORD, PgBouncer, Postgres, PostgresOptions, ROLE};
pub use process::Process;
pub use proxy::Proxy;
pub use redis::{Appends, Redis, RedisCluster, RedisOptions};
pub use shared::{Server, Shared};
