//! `crosstown trace`.

use crate::{
    cli::{ConfigArgs, runtime},
    socket::Socket,
};
use clap::Args;
use client::Client;
use serde_json::{Map, Value as Json, json};
use std::{process::ExitCode, time::Duration};
use types::{Pillar, PrincipalId, SessionId};

/// The node pings more often than that.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Args)]
pub(crate) struct TraceArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The node, `http://HOST:PORT`; the configured one's listener for clients, unless given.
    #[arg(long, value_name = "URL")]
    node: Option<String>,
    /// Connections of the user, agent or service of this name.
    #[arg(long, value_name = "NAME")]
    user: Option<PrincipalId>,
    /// Those of users, agents or services.
    #[arg(long, value_parser = ["user", "agent", "service"])]
    kind: Option<String>,
    /// Those of a session.
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// Those that work in a pillar.
    #[arg(long, value_name = "NAME")]
    pillar: Option<Pillar>,
    /// One of them.
    #[arg(long, value_name = "ID")]
    connection: Option<String>,
    /// Only what is about this channel.
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// For how long, at most 15m.
    #[arg(long = "for", value_name = "DURATION", default_value = "5m")]
    duration: String,
    /// Print JSON, a frame a line.
    #[arg(long)]
    json: bool,
}

impl TraceArgs {
    fn of(&self) -> Json {
        let text = |value: &Option<String>| value.clone();
        let members = [
            ("user", self.user.as_ref().map(ToString::to_string)),
            ("kind", text(&self.kind)),
            ("session", self.session.as_ref().map(ToString::to_string)),
            ("pillar", self.pillar.as_ref().map(ToString::to_string)),
            ("connection", text(&self.connection)),
            ("channel", text(&self.channel)),
        ];
        let said =
            members.into_iter().filter_map(|(name, value)| Some((name.into(), value?.into())));
        Json::Object(said.collect::<Map<_, _>>())
    }

    fn base(&self) -> Result<String, String> {
        match &self.node {
            Some(node) => Ok(node.clone()),
            None => Ok(format!("http://{}", self.config.load()?.edge.listen)),
        }
    }
}

pub(crate) fn run(args: &TraceArgs) -> Result<ExitCode, String> {
    let key = std::env::var("CROSSTOWN_API_KEY").map_err(|_| {
        "put the API key of a service or an admin into CROSSTOWN_API_KEY; \
         `crosstown api-key create` makes one"
            .to_owned()
    })?;
    let base = args.base()?;
    runtime()?.block_on(async {
        let client = Client::new(&base, &key).map_err(said)?;
        let wish = json!({ "of": args.of(), "duration": args.duration });
        let trace: Json = client.post("/crosstown/v1/traces", &wish).await.map_err(said)?;
        let text = |name: &str| trace[name].as_str().unwrap_or_default().to_owned();
        let path = format!("/crosstown/v1/traces/{}", text("id"));
        let followed = tokio::select! {
            followed = follow(&base, &key, &trace, args.json) => followed,
            _ = tokio::signal::ctrl_c() => Ok(false),
        };
        if !matches!(followed, Ok(true)) {
            // Nobody follows it any more.
            client.delete(&path).await.map_err(said)?;
        }
        followed.map(|_| ExitCode::SUCCESS)
    })
}

/// Prints what a trace shows until it has ended.
async fn follow(base: &str, key: &str, trace: &Json, as_json: bool) -> Result<bool, String> {
    let mut socket = Socket::open(base, key, PATIENCE).await?;
    socket.ask("subscribe", json!({ "channel": trace["channel"] })).await?;
    if !as_json {
        eprintln!("tracing; Ctrl-C ends it");
    }
    loop {
        let push = socket.publication().await?;
        let record = &push["pub"]["data"];
        for frame in record["frames"].as_array().into_iter().flatten() {
            println!("{}", if as_json { frame.to_string() } else { line(frame) });
        }
        let (dropped, node) = (&record["dropped"], &record["node"]);
        if dropped.as_u64() > Some(0) {
            match as_json {
                true => println!("{}", json!({ "dropped": dropped, "node": node })),
                false => println!("… {dropped} more than can be shown"),
            }
        }
        if record["ended"].is_string() && *node == trace["node"] {
            return Ok(true);
        }
    }
}

/// A frame on a line: when, whose, which way, and what.
fn line(frame: &Json) -> String {
    let text = |name: &str| frame[name].as_str().unwrap_or_default();
    let way = if frame["direction"] == "in" { '>' } else { '<' };
    let cut = if frame["is_cut"] == true { "…" } else { "" };
    let at = frame["at"].as_u64().unwrap_or_default();
    let (seconds, millis) = (at / 1_000, at % 1_000);
    let (connection, user, kind) = (text("connection"), text("user"), text("kind"));
    format!("{seconds}.{millis:03} {connection} {user} {way} {kind} {}{cut}", text("frame"))
}

fn said(error: client::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_line() {
        let frame = json!({
            "at": 1_700_000_000_007_u64, "connection": "con_1", "user": "ann", "direction": "in",
            "kind": "command", "frame": "{\"id\":1", "is_cut": true,
        });
        assert_eq!(line(&frame), "1700000000.007 con_1 ann > command {\"id\":1…");
    }
}
