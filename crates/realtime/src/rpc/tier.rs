//! The methods of documents' tiers.

use crate::rpc::{History, argument, json};
use protocol::Problem;
use serde::Deserialize;
use serde_json::{Value as Json, json as object};
use traffic_cop::state::{
    States,
    tier::{Tier, Towards, Wish},
};
use types::Caller;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Moving {
    document: String,
    tier: Option<Tier>,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    document: String,
}

/// Calls `method`, which is one of them.
pub(super) async fn call(
    states: &States,
    caller: &Caller,
    method: &str,
    data: &str,
) -> Result<Json, Problem> {
    let towards = match method {
        "state.tier" => {
            let Which { document } = argument(data)?;
            return json(states.tier(caller, &document.parse()?).await?);
        }
        "state.lineage" => {
            let History { document, offset, limit } = argument(data)?;
            let limit = limit.unwrap_or(100).clamp(1, 1_000);
            let moves = states.lineage(caller, &document.parse()?, offset, limit).await?;
            return Ok(object!({ "moves": json(moves)? }));
        }
        "state.demote" => Towards::Live,
        _ => Towards::Durable,
    };
    let Moving { document, tier, reason } = argument(data)?;
    json(states.relocate(caller, &document.parse()?, towards, Wish { tier, reason }).await?)
}
