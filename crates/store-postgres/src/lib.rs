//! The store on PostgreSQL 15 or newer, Supabase included.
//!
//! [`PostgresStore`] keeps every promise of [`::store::Store`] with tables in a schema of its
//! own: commits of many callers share a transaction, reads are one statement each, and no
//! session keeps any state, so that a transaction pooler may stand between. [`Options`] says
//! where the database is; its URL is refused if it holds anything that is not known.
//!
//! What a server keeps is read from its settings and told in the capabilities. Failover,
//! restore and (where the server does not sync) restarts are found by what the server says
//! of itself; then every partition begins a new incarnation. `docs/adr/0010` says what that
//! finds and what it cannot.

mod batch;
mod columns;
mod connection;
mod engine;
mod error;
mod following;
mod forgetting;
mod members;
mod migrations;
mod number;
mod options;
mod pool;
mod reads;
mod rows;
mod server;
mod sql;
mod store;
mod time;
mod tls;
mod transaction;
mod writer;

pub use crate::store::PostgresStore;
pub use error::OpenError;
pub use members::{MembersReader, MembersTable};
pub use options::{HintsBy, Options, Tls};
