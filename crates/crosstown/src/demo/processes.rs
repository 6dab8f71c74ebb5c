//! The processes of the demo, and the folder that they live in.

use crate::{
    config::Config,
    demo::server::{Server, Services},
};
use client::Client;
use serde_json::{Value as Json, json};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// How long a process may take to answer after its start.
pub(super) const START: Duration = Duration::from_secs(30);

/// A running demo.
pub(super) struct Town {
    folder: TempDir,
    /// One, or two on stores that they share.
    servers: Vec<Server>,
    services: Vec<(&'static str, Child)>,
    tenant: String,
    api_key: String,
}

impl Town {
    /// Starts everything: one server on a fresh embedded store, or two on the stores that
    /// `config` names, where the demo is a tenant of its own.
    pub(super) async fn start(port: u16, config: Option<&Path>) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("crosstown-demo-").tempdir();
        let folder = folder.map_err(|error| format!("cannot make a folder: {error}"))?;
        let services = Services {
            web: free_port(0)?,
            shop: free_port(0)?,
            plans: free_port(0)?,
            journeys: free_port(0)?,
        };
        let stores = config.map(stores_of).transpose()?;
        let mut servers = Vec::new();
        for (name, port) in
            [("one", port), ("two", 0)].into_iter().take(1 + usize::from(stores.is_some()))
        {
            let folder = folder.path().join(name);
            servers.push(Server::start(folder, port, stores.as_ref(), &services).await?);
        }
        let tenant = match &stores {
            None => "demo".into(),
            Some(_) => {
                let random = u32::from_be_bytes(clock::random(&*clock::SystemClock::shared()));
                format!("demo-{random:08x}")
            }
        };
        let mut town =
            Self { folder, servers, services: Vec::new(), tenant, api_key: String::new() };
        match town.servers.as_slice() {
            [one, two] => println!(
                "Two servers run on {} and {}, and share their stores; the demo is the tenant {}.",
                one.base(),
                two.base(),
                town.tenant
            ),
            _ => println!("A server runs on {} with a fresh embedded store.", town.base()),
        }

        town.api_key = town.new_key("demo-services", "admin").await?;
        let speaker = town.new_key("journeys", "realm-experience").await?;
        let (own, base, other) = (town.api_key.clone(), town.base(), town.other_base());
        let at = |port: u16| format!("127.0.0.1:{port}");
        let Services { web, shop, plans, journeys } = services;
        town.start_service("web", &own, &["--node", &base, "--listen", &at(web)])?;
        town.start_service("shop", &own, &["--node", &base, "--listen", &at(shop)])?;
        town.start_service("summary", &own, &["--node", &other])?;
        town.start_service("plans", &own, &["--listen", &at(plans)])?;
        town.start_service("journeys", &speaker, &["--node", &base, "--listen", &at(journeys)])?;
        for port in [web, shop, plans, journeys] {
            wait_for_port(port).await?;
        }
        println!(
            "Services run as processes of their own: web, shop, summary, and of two realms: plans \
             and journeys."
        );
        Ok(town)
    }

    /// Where clients connect.
    pub(super) fn base(&self) -> String {
        self.servers[0].base()
    }

    /// The same by the other server, if there is one.
    pub(super) fn other_base(&self) -> String {
        self.servers.last().map_or_else(|| self.base(), Server::base)
    }

    /// Whether two servers share their stores.
    pub(super) fn is_shared(&self) -> bool {
        self.servers.len() > 1
    }

    /// What is left of the demo when it ends.
    pub(super) fn remains(&self) -> String {
        match self.is_shared() {
            true => format!("The tenant {} stays in the stores", self.tenant),
            false => format!("Data is in {}, and is deleted", self.folder.path().display()),
        }
    }

    /// A client that carries the services' API key.
    pub(super) fn client(&self) -> Result<Client, String> {
        Client::new(&self.base(), &self.api_key).map_err(|error| error.to_string())
    }

    /// Kills the server that clients connect to, without warning.
    pub(super) async fn crash(&mut self) -> Result<(), String> {
        self.servers[0].kill().await
    }

    /// Starts it again on the same stores.
    pub(super) async fn start_again(&mut self) -> Result<(), String> {
        self.servers[0].start_again().await
    }

    /// Waits for Ctrl-C, or for a process to end that should not.
    pub(super) async fn watch(&mut self) -> Result<(), String> {
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            tokio::select! {
                _ = &mut interrupted => return Ok(()),
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
            for server in &mut self.servers {
                if let Some(status) = server.ended() {
                    return Err(format!("a server has ended: {status}"));
                }
            }
            for (name, child) in &mut self.services {
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(format!("the service {name} has ended: {status}"));
                }
            }
        }
    }

    /// Stops everything; the folder goes with it.
    pub(super) async fn stop(mut self) {
        for (_, child) in &mut self.services {
            let _ = child.kill().await;
        }
        for server in &mut self.servers {
            server.stop().await;
        }
    }

    /// An API key of the demo's tenant.
    async fn new_key(&self, principal: &str, role: &str) -> Result<String, String> {
        let body = json!({ "tenant": self.tenant, "principal": principal, "roles": [role] });
        let admin = self.servers[0].admin()?;
        let key: Json = admin.post("/api-keys", &body).await.map_err(|e| e.to_string())?;
        Ok(key["text"].as_str().unwrap_or_default().to_owned())
    }

    fn start_service(
        &mut self,
        name: &'static str,
        key: &str,
        args: &[&str],
    ) -> Result<(), String> {
        let child = Command::new(this_program()?)
            .args(["example", name])
            .args(args)
            .env("CROSSTOWN_API_KEY", key)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot start the service {name}: {error}"))?;
        self.services.push((name, child));
        Ok(())
    }
}

/// The table `stores` of a configuration, which has to be one that nodes can share.
fn stores_of(file: &Path) -> Result<toml::Table, String> {
    let shown = file.display();
    if !Config::load(Some(file))?.stores.engines()?.are_shared() {
        return Err(format!(
            "{shown}: the demo runs two nodes on these stores, which must be Redis or PostgreSQL"
        ));
    }
    let text = fs::read_to_string(file).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let mut table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| format!("{shown}: {}", error.message()))?;
    let stores = table.remove("stores");
    if let Some(more) = table.keys().next() {
        return Err(format!("{shown}: the demo takes `[stores]` only, and there is `{more}`"));
    }
    match stores {
        Some(toml::Value::Table(stores)) => Ok(stores),
        Some(_) | None => Err(format!("{shown} has no `[stores]`")),
    }
}

/// `port`, if it is free; any free one for 0.
pub(super) fn free_port(port: u16) -> Result<u16, String> {
    let listener = TcpListener::bind(("127.0.0.1", port)).map_err(|error| {
        format!("port {port} cannot be used: {error}; choose another with --port")
    })?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

pub(super) fn this_program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))
}

async fn wait_for_port(port: u16) -> Result<(), String> {
    let until = tokio::time::Instant::now() + START;
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        if tokio::time::Instant::now() > until {
            return Err(format!("the service on port {port} does not answer"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
