//! Opening a store by its URL, with the shipped defaults.

use crate::told;
use clock::SharedClock;
use std::{path::Path, sync::Arc};
use store::SharedStore;
use store_embedded::EmbeddedStore;
use store_memory::MemoryStore;
use store_postgres::PostgresStore;
use store_redis::RedisStore;

pub(crate) async fn open(url: &str, clock: &SharedClock) -> Result<SharedStore, String> {
    let clock = clock.clone();
    Ok(match url.split_once(':') {
        Some(("memory", _)) => Arc::new(MemoryStore::new(clock)),
        Some(("embedded", folder)) => {
            let options = store_embedded::Options::default();
            Arc::new(EmbeddedStore::open(Path::new(folder), options, clock).map_err(told)?)
        }
        Some(("postgres", _)) => {
            let options = store_postgres::Options::parse(url).map_err(told)?;
            Arc::new(PostgresStore::open(options).await.map_err(told)?)
        }
        Some(_) | None => {
            let options = store_redis::Options::default();
            Arc::new(RedisStore::open(url, options, clock).await.map_err(told)?)
        }
    })
}
