//! The methods of mailboxes.

use crate::rpc::{argument, json};
use post_office::{Address, Mailboxes, NewLetter};
use protocol::Problem;
use serde::Deserialize;
use serde_json::{Value as Json, json as object};
use types::Caller;

#[derive(Deserialize)]
struct Send {
    to: String,
    #[serde(flatten)]
    letter: NewLetter,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    of: Option<String>,
    after: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    of: Option<String>,
    letter: String,
    #[serde(default)]
    why: String,
}

/// The named mailbox, or the caller's own.
fn address(caller: &Caller, of: Option<String>) -> Result<Address, Problem> {
    of.map_or_else(|| Ok(Address::of(caller)), |of| of.parse())
}

/// Calls `method` of the mailboxes; `None` if they have none of this name.
pub(super) async fn call(
    mailboxes: &Mailboxes,
    caller: &Caller,
    method: &str,
    data: &str,
) -> Option<Result<Json, Problem>> {
    let answer = match method {
        "send" => send(mailboxes, caller, data).await,
        "list" | "dead" => list(mailboxes, caller, method == "dead", data).await,
        "ack" | "refuse" | "revive" => one(mailboxes, caller, method, data).await,
        _ => return None,
    };
    Some(answer)
}

async fn send(mailboxes: &Mailboxes, caller: &Caller, data: &str) -> Result<Json, Problem> {
    let Send { to, letter } = argument(data)?;
    json(mailboxes.send(caller, &to.parse()?, letter).await?)
}

async fn list(
    mailboxes: &Mailboxes,
    caller: &Caller,
    dead: bool,
    data: &str,
) -> Result<Json, Problem> {
    let List { of, after } = argument(data)?;
    let of = address(caller, of)?;
    let letters = match dead {
        true => json(mailboxes.dead(caller, &of, after.as_deref()).await?)?,
        false => json(mailboxes.list(caller, &of, after.as_deref()).await?)?,
    };
    Ok(object!({ "letters": letters }))
}

async fn one(
    mailboxes: &Mailboxes,
    caller: &Caller,
    method: &str,
    data: &str,
) -> Result<Json, Problem> {
    let One { of, letter, why } = argument(data)?;
    let of = address(caller, of)?;
    match method {
        "ack" => mailboxes.acknowledge(caller, &of, &letter).await?,
        "refuse" => mailboxes.give_back(caller, &of, &letter, &why).await?,
        _ => return Ok(object!({ "letter": mailboxes.revive(caller, &of, &letter).await? })),
    }
    Ok(object!({}))
}
