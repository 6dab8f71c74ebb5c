//! Forgetting what need no longer be known: ids, deletions, and entries below a trim.

use crate::{engine::Engine, number, pool::Param};
use std::{sync::Arc, time::Duration};
use store::{
    Error,
    bounds::{COMMIT_ID_KEPT, DELETION_KEPT},
};
use tokio_postgres::types::Type;

/// How often to look, when there was nothing left the last time.
const EVERY: Duration = Duration::from_secs(10);
/// How often, if there may be more.
const BEHIND: Duration = Duration::from_millis(50);
/// Rows of each table at once: a short transaction, which hardly delays anyone.
const AT_ONCE: i64 = 1000;

/// Forgets for as long as the store is open. Any number of nodes may: they skip what another
/// one has locked.
pub(crate) async fn run(engine: Arc<Engine>) {
    loop {
        let behind = once(&engine).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "what is old cannot be forgotten at the moment");
            false
        });
        tokio::time::sleep(if behind { BEHIND } else { EVERY }).await;
    }
}

/// Answers whether there may be more.
async fn once(engine: &Engine) -> Result<bool, Error> {
    let time = engine.time.param();
    let millis = |kept: Duration| number::signed(u64::try_from(kept.as_millis()).unwrap_or(0));
    let (ids, deletions) = (millis(COMMIT_ID_KEPT), millis(DELETION_KEPT));
    let params = |kept| -> [Param<'_>; 3] {
        [(&time, Type::INT8), (kept, Type::INT8), (&AT_ONCE, Type::INT8)]
    };
    engine.pool.write(&engine.sql.forget_deletions, &params(&deletions)).await?;
    engine.pool.write(&engine.sql.forget_ids, &params(&ids)).await?;
    let at_once: Param<'_> = (&AT_ONCE, Type::INT8);
    let trimmed = engine.pool.write(&engine.sql.forget_trimmed, &[at_once]).await?;
    let gone: i64 = trimmed.first().map_or(Ok(0), |row| crate::rows::get(row, "gone"))?;
    Ok(gone > 0)
}
