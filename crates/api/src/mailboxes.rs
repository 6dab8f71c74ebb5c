//! `/crosstown/v1/mailboxes/{address}`: letters that wait until they are acknowledged.

use crate::{
    Parts,
    answer::{Answer, Created, Done, OkOr},
    document::told,
    request::{By, InPath, Json, JsonOrDefault, Wanted},
};
use aide::axum::{
    ApiRouter,
    routing::{delete_with, get_with, post_with},
};
use axum::extract::State;
use post_office::{Address, Dead, Letter, Mailboxes, NewLetter, Received, Sent};
use protocol::Code::{Conflict, NotFound, StoreFull};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

type Shared = Arc<Mailboxes>;

pub(crate) fn routes() -> ApiRouter<Parts> {
    let letters = post_with(send, told("sendLetter", "Send a letter.", &[Conflict, StoreFull]))
        .get_with(list, told("listLetters", "Letters that wait.", &[NotFound]));
    ApiRouter::new()
        .api_route("/mailboxes/{address}/letters", letters)
        .api_route(
            "/mailboxes/{address}/letters/{letter}",
            delete_with(
                acknowledge,
                told("acknowledgeLetter", "It was read.", &[NotFound, Conflict]),
            ),
        )
        .api_route(
            "/mailboxes/{address}/letters/{letter}/refusals",
            post_with(
                give_back,
                told("refuseLetter", "Nothing can be done with it.", &[NotFound, Conflict]),
            ),
        )
        .api_route(
            "/mailboxes/{address}/dead",
            get_with(dead, told("listDeadLetters", "Letters that nobody will read.", &[NotFound])),
        )
        .api_route(
            "/mailboxes/{address}/dead/{letter}/revive",
            post_with(
                revive,
                told("reviveLetter", "It waits again, behind all others.", &[NotFound, Conflict]),
            ),
        )
}

/// Which mailbox a path names.
#[derive(Deserialize, JsonSchema)]
struct OfMailbox {
    /// Whose it is: `user:ann`, `agent:planner`, `service:billing` or `session:ses_…`.
    address: String,
}

/// Which letter a path names.
#[derive(Deserialize, JsonSchema)]
struct OfLetter {
    /// Whose the mailbox is.
    address: String,
    /// The letter's name in it.
    letter: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct After {
    /// Those after this one, by its name.
    after: Option<String>,
}

/// Letters that wait.
#[derive(Serialize, JsonSchema)]
struct Letters {
    letters: Vec<Received<Letter>>,
}

/// Letters that nobody will read.
#[derive(Serialize, JsonSchema)]
struct DeadLetters {
    letters: Vec<Received<Dead>>,
}

/// A letter that waits again.
#[derive(Serialize, JsonSchema)]
struct Revived {
    /// Its name.
    letter: String,
}

/// Why a letter is given back.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Why {
    /// In words.
    #[serde(default)]
    why: String,
}

async fn send(
    State(mailboxes): State<Shared>,
    by: By,
    InPath(OfMailbox { address }): InPath<OfMailbox>,
    Json(new): Json<NewLetter>,
) -> Answer<OkOr<201, Sent>> {
    let sent = mailboxes.send(&by, &address.parse()?, new).await?;
    Ok(if sent.repeated { OkOr::Ok(sent) } else { OkOr::Else(sent) })
}

async fn list(
    State(mailboxes): State<Shared>,
    by: By,
    InPath(OfMailbox { address }): InPath<OfMailbox>,
    Wanted(After { after }): Wanted<After>,
) -> Answer<Json<Letters>> {
    let of: Address = address.parse()?;
    let letters = mailboxes.list(&by, &of, after.as_deref()).await?;
    Ok(Json(Letters { letters }))
}

async fn acknowledge(
    State(mailboxes): State<Shared>,
    by: By,
    InPath(OfLetter { address, letter }): InPath<OfLetter>,
) -> Answer<Done> {
    mailboxes.acknowledge(&by, &address.parse()?, &letter).await?;
    Ok(Done)
}

async fn give_back(
    State(mailboxes): State<Shared>,
    by: By,
    InPath(OfLetter { address, letter }): InPath<OfLetter>,
    JsonOrDefault(Why { why }): JsonOrDefault<Why>,
) -> Answer<Done> {
    mailboxes.give_back(&by, &address.parse()?, &letter, &why).await?;
    Ok(Done)
}

async fn dead(
    State(mailboxes): State<Shared>,
    by: By,
    InPath(OfMailbox { address }): InPath<OfMailbox>,
    Wanted(After { after }): Wanted<After>,
) -> Answer<Json<DeadLetters>> {
    let of: Address = address.parse()?;
    let letters = mailboxes.dead(&by, &of, after.as_deref()).await?;
    Ok(Json(DeadLetters { letters }))
}

async fn revive(
    State(mailboxes): State<Shared>,
    by: By,
    InPath(OfLetter { address, letter }): InPath<OfLetter>,
) -> Answer<Created<Revived>> {
    let letter = mailboxes.revive(&by, &address.parse()?, &letter).await?;
    Ok(Created(Revived { letter }))
}
