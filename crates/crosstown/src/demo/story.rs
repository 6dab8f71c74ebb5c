//! The story of the demo, told by clients over loopback.

use crate::{demo::processes::Town, socket::Socket};
use client::{Client, Event};
use http::Method;
use serde_json::{Value as Json, json};
use std::time::Duration;

/// How long nothing may come on a socket.
const WITHIN: Duration = Duration::from_secs(10);
const DOCUMENT: &str = "pillar:demo";
const CHANNEL: &str = "state:pillar:demo";

/// Tells the story and returns how many steps it had.
///
/// # Errors
/// What was expected and what was seen instead.
pub(super) async fn tell(town: &mut Town) -> Result<u32, String> {
    let mut steps = Steps(0);
    let base = town.base();

    let nobody = Client::new(&base, "").map_err(said)?;
    let page = nobody.call(Method::GET, "/", None).await.map_err(said)?;
    expect(page.status == 200, || format!("the page answers {}", page.status))?;
    let session: Json = nobody.post("/enter", &json!({})).await.map_err(said)?;
    let token = session["token"].as_str().ok_or("there is no session token")?.to_owned();
    steps.tell(&format!(
        "The page lets a visitor in: session {} for {}",
        session["id"], session["principal"]
    ));

    let other = town.other_base();
    let mut first = Socket::open(&base, &token, WITHIN).await?;
    let mut second = Socket::open(&other, &token, WITHIN).await?;
    for tab in [&mut first, &mut second] {
        tab.ask("subscribe", json!({ "channel": CHANNEL, "recoverable": true })).await?;
    }
    let own =
        [first.rpc("session.get", json!({})).await?, second.rpc("session.get", json!({})).await?];
    expect(own[0]["id"] == own[1]["id"], || format!("two sessions: {} {}", own[0], own[1]))?;
    let by = if town.is_shared() { ", one by each server" } else { "" };
    steps.tell(&format!("Two tabs connect{by}; both are bound to the same session"));

    let mut watcher = town.client()?.document("pillar", "demo").follow();
    watcher.next().await.map_err(said)?;
    let text = "meet me at the tram stop";
    let write = json!({ "document": DOCUMENT, "key": "note", "value": { "text": text } });
    let done = first.rpc("state.put", write).await?;
    let mut seen = Vec::new();
    for tab in [&mut first, &mut second] {
        let (note, summary) = (tab.publication().await?, tab.publication().await?);
        seen.push([revision_of(&note), revision_of(&summary)]);
        expect(note["pub"]["data"]["value"]["text"] == text, || format!("a tab saw {note}"))?;
        expect(summary["pub"]["data"]["value"]["words"] == 6, || format!("a tab saw {summary}"))?;
    }
    let mut by_service = Vec::new();
    while by_service.len() < 2 {
        if let Event::Change(change) = watcher.next().await.map_err(said)? {
            by_service.push(Some(change.revision));
        }
    }
    expect(seen[0] == seen[1] && by_service == seen[0], || {
        format!("orders differ: {seen:?} and {by_service:?}")
    })?;
    steps.tell(&format!(
        "One tab writes a note (revision {}); the summary service answers it; both tabs and \
         another service see revisions {:?} in that order",
        done["revision"],
        by_service.iter().flatten().collect::<Vec<_>>()
    ));

    let stale = json!({ "document": DOCUMENT, "key": "note", "value": 1, "if_revision": 999 });
    let refused = second.rpc("state.put", stale).await;
    expect(refused.as_ref().is_err_and(|why| why.contains("conflict")), || {
        format!("a stale write was answered with {refused:?}")
    })?;
    steps.tell("A write with a stale revision is refused, and told what stands there");

    let offset = second.ask("history", json!({ "channel": CHANNEL, "limit": 0 })).await?;
    drop(second);
    for n in 1..=3 {
        let patch = json!({ "document": DOCUMENT, "key": "note", "value": { "seen_by": n } });
        first.rpc("state.patch", patch).await?;
    }
    let mut second = Socket::open(&base, &token, WITHIN).await?;
    let back = json!({
        "channel": CHANNEL, "recover": true, "epoch": offset["epoch"], "offset": offset["offset"],
    });
    let recovered = second.ask("subscribe", back).await?;
    let missed = recovered["publications"].as_array().map_or(0, Vec::len);
    expect(recovered["recovered"] == true && missed >= 3, || format!("recovery: {recovered}"))?;
    steps.tell(&format!(
        "A tab loses its network, comes back, and gets the {missed} changes it missed"
    ));

    let visitor = Client::new(&base, &token).map_err(said)?;
    let mut allowed = 0;
    let refusal = loop {
        let answer = visitor.call(Method::GET, "/shop/items", None).await.map_err(said)?;
        match answer.status.as_u16() {
            200 => allowed += 1,
            429 => break answer,
            other => return Err(format!("the shop answers {other}")),
        }
        expect(allowed <= 50, || "the limit never answers".into())?;
    };
    let retry = refusal.headers.get("retry-after").and_then(|value| value.to_str().ok());
    // A server that cannot reach the one that counts has its half.
    let least = if town.is_shared() { 5 } else { 10 };
    expect(allowed >= least && retry.is_some(), || format!("{allowed} calls, then {refusal:?}"))?;
    steps.tell(&format!(
        "{allowed} calls to the shop pass the gateway; the next one answers 429, retry after {} s",
        retry.unwrap_or("?")
    ));

    let journey: Json = visitor.get("/experience/journeys/first").await.map_err(said)?;
    let asked = &journey["plan"]["asked"];
    expect(asked["realm"] == "experience" && asked["principal"] == session["principal"], || {
        format!("the journey is {journey}")
    })?;
    let refused = visitor.delete("/experience/journeys/first").await;
    let rule = match &refused {
        Err(client::Error::Refused { status: 403, document, .. }) => document["rule"].clone(),
        Ok(()) | Err(_) => Json::Null,
    };
    expect(rule == "no-bridge", || format!("what no bridge allows was answered {refused:?}"))?;
    steps.tell(
        "The realm experience reads a plan of the realm solution for the visitor; it may not drop \
         it: 403, by the rule no-bridge",
    );

    let mut traffic = Json::Null;
    for _ in 0..50 {
        traffic = visitor.get("/crosstown/v1/analytics/traffic?range=1h").await.map_err(said)?;
        if traffic["total"]["limited"].as_u64() >= Some(1) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    expect(traffic["services"]["shop"]["requests"].as_u64() > Some(allowed), || {
        format!("the traffic report is {traffic}")
    })?;
    steps.tell(&format!(
        "Traffic of the last hour: {} requests, {} of them limited, p99 {} ms",
        traffic["total"]["requests"],
        traffic["total"]["limited"],
        traffic["total"]["latency_ms_p99"]
    ));

    let document = visitor.document("pillar", "demo");
    let before = loop {
        let snapshot = document.snapshot().await.map_err(said)?;
        let revision = |key| snapshot.entries.iter().find(|e| e.key == key).map(|e| e.revision);
        if revision("summary") > revision("note") {
            break snapshot; // The summary service has answered the last note.
        }
    };
    town.crash().await?;
    if town.is_shared() {
        let there = Client::new(&other, &token).map_err(said)?;
        let meanwhile = there.document("pillar", "demo").snapshot().await.map_err(said)?;
        expect(before == meanwhile, || format!("the other server has {meanwhile:?}"))?;
    }
    town.start_again().await?;
    let after = document.snapshot().await.map_err(said)?;
    let path = format!("/crosstown/v1/sessions/{}", session["id"].as_str().unwrap_or_default());
    let survived: Json = visitor.get(&path).await.map_err(said)?;
    expect(before == after && survived["id"] == session["id"], || {
        format!("before the crash {before:?}, after it {after:?}")
    })?;
    let meanwhile = if town.is_shared() { ", and were meanwhile, by the other one" } else { "" };
    steps.tell(&format!(
        "The server is killed (kill -9) and started again: session and document are \
         there{meanwhile}"
    ));

    visitor.delete(&path).await.map_err(said)?;
    let ended = visitor.get::<Json>(&path).await;
    expect(ended.as_ref().is_err_and(|why| why.code() == Some("unauthenticated")), || {
        format!("a destroyed session answers {ended:?}")
    })?;
    steps.tell("The session is destroyed: its token is refused at once");
    Ok(steps.0)
}

struct Steps(u32);

impl Steps {
    fn tell(&mut self, what: &str) {
        self.0 += 1;
        println!("{:>2}. {what}.", self.0);
    }
}

fn revision_of(push: &Json) -> Option<u64> {
    push["pub"]["data"]["revision"].as_u64()
}

fn expect(holds: bool, otherwise: impl Fn() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn said(error: client::Error) -> String {
    error.to_string()
}
