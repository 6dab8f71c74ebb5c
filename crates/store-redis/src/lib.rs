//! The store and the fan-out on Redis 7, Valkey and Redis Cluster.
//!
//! [`RedisStore`] says what is promised and when; start there. `keys` is the format inside the
//! server, `peek` reads single records, `scripts` and `lua/` change and read it, `request` and
//! `reply` speak with them.
//! `facts` is what a server says of itself, `node` one connection, `nodes` all of them, `map` who
//! has which bucket, `failure` what to do when it did not work; `listener` hears what the
//! servers publish, for hints and for [`RedisFanout`].

mod facts;
mod failure;
mod fanout;
mod keys;
mod list;
mod listener;
mod map;
mod node;
mod nodes;
mod options;
mod peek;
mod reply;
mod request;
mod scripts;
mod store;

pub use crate::store::RedisStore;
pub use fanout::RedisFanout;
pub use options::{OpenError, Options, StoreTime, check_url};
