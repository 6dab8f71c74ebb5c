//! Realms, their documents and the bridges between them, with the services of `examples/realms`
//! as processes of their own.

mod calls;
mod documents;
mod published;

use client::{Client, Service};
use http::Method;
use integration_tests::{Server, binary, repository};
use serde_json::{Value as Json, json};
use std::process::Command;
use tempfile::TempDir;
use test_servers::{Process, free_ports};

/// The two realms, running.
pub(crate) struct Realms {
    pub(crate) node: Server,
    journeys: u16,
    processes: Vec<Process>,
    folder: TempDir,
}

impl Realms {
    /// The realms of the example, with `change` made to their configuration, and `more` after it.
    pub(crate) fn start(change: impl FnOnce(String) -> String, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [port, journeys] = free_ports().unwrap();
        let mut command = Command::new(binary());
        command.args(["example", "plans", "--listen", &format!("127.0.0.1:{port}")]);
        let plans = Process::start(&mut command, port, &folder.path().join("plans.log")).unwrap();
        let example = repository().join("examples/realms");
        let config = std::fs::read_to_string(example.join("realms.toml")).unwrap();
        let config = config
            .replace("127.0.0.1:9101", &format!("127.0.0.1:{port}"))
            .replace("127.0.0.1:9102", &format!("127.0.0.1:{journeys}"))
            .replace("examples/realms/", &format!("{}/", example.display()));
        let node = Server::start(&format!("{}{more}", change(config)));
        Self { node, journeys, processes: vec![plans], folder }
    }

    pub(crate) fn as_it_is() -> Self {
        Self::start(|config| config, "")
    }

    /// Starts the other service, which calls the first.
    pub(crate) async fn start_journeys(&mut self) {
        let body = json!({
            "tenant": "acme", "principal": "journeys", "roles": ["realm-experience"],
        });
        let key: Json = self.node.admin().post("/api-keys", &body).await.unwrap();
        let mut command = Command::new(binary());
        command
            .args(["example", "journeys", "--listen", &format!("127.0.0.1:{}", self.journeys)])
            .args(["--node", &self.node.base()])
            .env("CROSSTOWN_API_KEY", key["text"].as_str().unwrap());
        let log = self.folder.path().join("journeys.log");
        self.processes.push(Process::start(&mut command, self.journeys, &log).unwrap());
    }

    /// Ends the service `plans` at once.
    pub(crate) fn stop_plans(&mut self) {
        self.processes.remove(0);
    }

    /// Whoever speaks for a realm.
    pub(crate) fn speaker(&self, realm: &str) -> Client {
        self.with_roles("speaker", &[&format!("realm-{realm}")])
    }

    pub(crate) fn with_roles(&self, user: &str, roles: &[&str]) -> Client {
        let token = self.node.token_with("acme", user, json!({ "roles": roles }));
        Client::new(&self.node.base(), &token).unwrap()
    }

    /// Plans, as the realm `experience` calls them.
    pub(crate) fn plans(&self) -> Service {
        self.speaker("experience").service("solution", "plans")
    }
}

/// The status of an answer, and its body as JSON.
pub(crate) async fn told(
    service: &Service,
    method: Method,
    path: &str,
    body: Option<Json>,
) -> (u16, Json) {
    let body = body.map(|body| body.to_string().into_bytes());
    let answer = service.call(method, path, body).await.unwrap();
    let document = serde_json::from_slice(&answer.body).unwrap_or_default();
    (answer.status.as_u16(), document)
}
