//! One server of the demo.

use crate::demo::processes::{START, free_port, this_program};
use client::Client;
use serde_json::Value as Json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::process::{Child, Command};

/// A `crosstown serve` in a folder of its own.
pub(super) struct Server {
    folder: PathBuf,
    edge: u16,
    admin: u16,
    child: Child,
}

/// What servers lead to.
pub(super) struct Services {
    pub(super) web: u16,
    pub(super) shop: u16,
    pub(super) plans: u16,
    pub(super) journeys: u16,
}

/// What the services of the two realms promise.
const DOCUMENTS: [(&str, &str); 2] = [
    ("plans.yaml", include_str!("../../../../examples/realms/plans.yaml")),
    ("journeys.yaml", include_str!("../../../../examples/realms/journeys.yaml")),
];

impl Server {
    /// Starts a server with its edge on `edge`, or on any free port if that is 0, and waits
    /// until it answers. `stores` is the table of that name; none: an embedded store.
    pub(super) async fn start(
        folder: PathBuf,
        edge: u16,
        stores: Option<&toml::Table>,
        services: &Services,
    ) -> Result<Self, String> {
        let (edge, admin) = (free_port(edge)?, free_port(0)?);
        let embedded = toml::Table::from_iter([(
            "durable".to_owned(),
            format!("embedded:{}", folder.join("data").display()).into(),
        )]);
        let stores = toml::Table::from_iter([(
            "stores".to_owned(),
            stores.unwrap_or(&embedded).clone().into(),
        )]);
        let key_file = folder.join("data.admin-key");
        let mut config = configuration(&stores.to_string(), edge, admin, &key_file, services);
        config.push_str(&realms(&folder, services));
        let write = |(name, text)| fs::write(folder.join(name), text);
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(folder.join("crosstown.toml"), config))
            .and_then(|()| DOCUMENTS.into_iter().try_for_each(write))
            .map_err(|error| format!("cannot write the configuration: {error}"))?;
        let child = spawn(&folder)?;
        let mut server = Self { folder, edge, admin, child };
        server.wait().await?;
        Ok(server)
    }

    pub(super) fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.edge)
    }

    pub(super) fn admin(&self) -> Result<Client, String> {
        let key = fs::read_to_string(self.folder.join("data.admin-key"))
            .map_err(|error| format!("the server made no admin key: {error}"))?;
        Client::new(&format!("http://127.0.0.1:{}", self.admin), key.trim())
            .map_err(|error| error.to_string())
    }

    /// Kills the server without warning.
    pub(super) async fn kill(&mut self) -> Result<(), String> {
        self.child.kill().await.map_err(|error| format!("cannot kill the server: {error}"))
    }

    /// Starts it again on what it left.
    pub(super) async fn start_again(&mut self) -> Result<(), String> {
        self.child = spawn(&self.folder)?;
        self.wait().await
    }

    /// The exit status, if it has ended.
    pub(super) fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// Asks it to finish what is in flight and end; makes it after a while.
    pub(super) async fn stop(&mut self) {
        if let Some(pid) = self.child.id() {
            let asked = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await;
            let ended = tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await;
            if asked.is_err() || ended.is_err() {
                let _ = self.child.kill().await;
            }
        }
    }

    async fn wait(&mut self) -> Result<(), String> {
        let until = tokio::time::Instant::now() + START;
        loop {
            if let Some(status) = self.ended() {
                let said = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                let last = said.lines().last().unwrap_or_default();
                return Err(format!("the server has ended: {status}: {last}"));
            }
            let reached = match self.admin() {
                Ok(admin) => admin.get::<Json>("/ready").await.is_ok(),
                Err(_) => false,
            };
            if reached {
                return Ok(());
            }
            if tokio::time::Instant::now() > until {
                return Err("the server does not answer".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn spawn(folder: &Path) -> Result<Child, String> {
    let failed = |error: std::io::Error| format!("cannot start the server: {error}");
    let log = fs::File::create(folder.join("log")).map_err(failed)?;
    Command::new(this_program()?)
        .arg("serve")
        .arg("--config")
        .arg(folder.join("crosstown.toml"))
        .env("CROSSTOWN_LOG", "warn")
        .stdin(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)
}

fn configuration(
    stores: &str,
    edge: u16,
    admin: u16,
    key_file: &Path,
    services: &Services,
) -> String {
    let Services { web, shop, .. } = services;
    let key_file = toml::Value::from(key_file.display().to_string());
    format!(
        r#"{stores}
[edge]
listen = "127.0.0.1:{edge}"

[admin]
listen = "127.0.0.1:{admin}"
key_file = {key_file}

[services.web]
instances = ["http://127.0.0.1:{web}"]

[services.shop]
instances = ["http://127.0.0.1:{shop}"]

# The page and the door; whoever has no session yet gets one here.
[[routes]]
name = "page"
service = "web"
prefix = "/"
auth = "none"

# The shop, for visitors with a session.
[[routes]]
name = "shop"
service = "shop"
prefix = "/shop"
strip_prefix = true

[[limits]]
name = "shop-per-user"
per = "user"
requests = 10
period = "10s"
routes = ["shop"]

[[limits]]
name = "door"
per = "ip"
requests = 100
period = "1m"
routes = ["page"]
"#
    )
}

/// The two realms of `examples/realms`, and the bridge between them.
fn realms(folder: &Path, services: &Services) -> String {
    let Services { plans, journeys, .. } = services;
    let document = |name| toml::Value::from(folder.join(name).display().to_string());
    let (plans_promise, journeys_promise) = (document("plans.yaml"), document("journeys.yaml"));
    format!(
        r#"
[services.plans]
instances = ["http://127.0.0.1:{plans}"]

[services.journeys]
instances = ["http://127.0.0.1:{journeys}"]
forward_credentials = true

[realms.solution]
roles = ["realm-solution"]
[realms.solution.services.plans]
openapi = {plans_promise}

[realms.experience]
roles = ["realm-experience"]
[realms.experience.services.journeys]
openapi = {journeys_promise}

# The experience reads plans; it does not drop them.
[[bridges]]
name = "experience-reads-plans"
from = "experience"
to = "solution"
operations = ["getPlan"]

[[routes]]
name = "experience"
service = "journeys"
prefix = "/experience"
strip_prefix = true
openapi = true
"#
    )
}
