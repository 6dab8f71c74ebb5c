//! The demo's services: small programs of their own, such as a team would write. They know
//! Crosstown by HTTP and by the `client` crate only.

mod realms;

use crate::{
    cli::runtime,
    node::{CONNECTIONS_MAX, serve_routes},
};
use axum::{
    Json, Router,
    extract::State,
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use clap::{Args, Subcommand};
use client::{Client, Event};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use std::{net::SocketAddr, process::ExitCode, sync::Arc};
use tokio::net::TcpListener;

const PAGE: &str = include_str!("demo/page.html");

#[derive(Subcommand)]
pub(crate) enum Example {
    /// Serves the page, and lets visitors in.
    Web(ServiceArgs),
    /// Answers what is for sale.
    Shop(ServiceArgs),
    /// Keeps plans: of the realm `solution` in `examples/realms`.
    Plans(ListenArgs),
    /// Shows journeys by plans: of the realm `experience` there.
    Journeys(ServiceArgs),
    /// Follows what visitors write, and writes a summary beside it.
    Summary(NodeArgs),
}

#[derive(Args)]
pub(crate) struct ListenArgs {
    /// Where it listens.
    #[arg(long)]
    listen: SocketAddr,
}

#[derive(Args)]
pub(crate) struct ServiceArgs {
    /// Where it listens.
    #[arg(long)]
    listen: SocketAddr,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Args)]
pub(crate) struct NodeArgs {
    /// The platform.
    #[arg(long)]
    node: String,
}

impl NodeArgs {
    /// The service's own client. Its API key comes by the environment, not by the command
    /// line, which others can read.
    fn client(&self) -> Result<Client, String> {
        let key = std::env::var("CROSSTOWN_API_KEY")
            .map_err(|_| "set CROSSTOWN_API_KEY to the service's API key")?;
        Client::new(&self.node, &key).map_err(|error| error.to_string())
    }
}

pub(crate) fn run(example: Example) -> Result<ExitCode, String> {
    runtime()?.block_on(async {
        match example {
            Example::Web(args) => listen(args.listen, web(args.node.client()?)).await?,
            Example::Shop(args) => listen(args.listen, shop()).await?,
            Example::Plans(args) => listen(args.listen, realms::plans()).await?,
            Example::Journeys(args) => {
                listen(args.listen, realms::journeys(&args.node.client()?)).await?;
            }
            Example::Summary(args) => summarise(&args.client()?).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn listen(address: SocketAddr, routes: Router) -> Result<(), String> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    serve_routes(listener, routes, CONNECTIONS_MAX).await;
    Ok(())
}

fn web(client: Client) -> Router {
    Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/enter", post(enter))
        .with_state(Arc::new(client))
}

/// Makes a session for a visitor; its token is the visitor's credential from now on.
async fn enter(State(client): State<Arc<Client>>) -> Response {
    let visitor =
        format!("visitor-{}", &traffic_cop::random_secret(&*clock::SystemClock::shared())[..8]);
    let path = format!("/crosstown/v1/sessions?user={}", visitor.replace('_', "-"));
    match client.post::<Value>(&path, &json!({ "kind": "web", "ttl": "1h" })).await {
        Ok(session) => Json(session).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

fn shop() -> Router {
    Router::new().route("/items", get(items)).route("/hello", get(|| async { "hello" }))
}

/// The verified caller arrives in header fields that no client can forge.
async fn items(headers: HeaderMap) -> Json<Value> {
    let told = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
    Json(json!({
        "items": ["a map of the town", "a tram ticket", "a whistle"],
        "served_to": { "tenant": told("x-crosstown-tenant"), "user": told("x-crosstown-principal") },
    }))
}

/// For each text that a visitor writes into `pillar:demo`, writes how long it is.
async fn summarise(client: &Client) -> Result<(), String> {
    let document = client.document("pillar", "demo");
    let mut follower = document.follow();
    loop {
        let texts: Vec<(String, Value)> = match follower.next().await.map_err(|e| e.to_string())? {
            Event::Snapshot(snapshot) => {
                snapshot.entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
            }
            Event::Change(change) => {
                change.value.map(|value| (change.key, value)).into_iter().collect()
            }
        };
        for (key, value) in texts {
            let Some(text) = value["text"].as_str().filter(|_| key != "summary") else { continue };
            let words = text.split_whitespace().count();
            let summary = json!({ "of": key, "words": words, "letters": text.chars().count() });
            if let Err(error) = document.put("summary", &summary, None).await {
                eprintln!("summary: {error}");
            }
        }
    }
}
