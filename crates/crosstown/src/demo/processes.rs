//! The processes of the demo, and the folder that they live in.

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
const START: Duration = Duration::from_secs(30);

/// A running demo.
pub(super) struct Town {
    folder: TempDir,
    ports: Ports,
    server: Child,
    services: Vec<(&'static str, Child)>,
    api_key: String,
}

struct Ports {
    edge: u16,
    admin: u16,
    web: u16,
    shop: u16,
}

impl Ports {
    /// Free ports. They are held together while they are chosen, so no two are the same.
    fn choose(edge: u16) -> Result<Self, String> {
        let bind = |port: u16| {
            TcpListener::bind(("127.0.0.1", port)).map_err(|error| {
                format!("port {port} cannot be used: {error}; choose another with --port")
            })
        };
        let held = [bind(edge)?, bind(0)?, bind(0)?, bind(0)?];
        let mut ports = [0; 4];
        for (port, listener) in ports.iter_mut().zip(&held) {
            *port = listener.local_addr().map_err(|error| error.to_string())?.port();
        }
        let [edge, admin, web, shop] = ports;
        Ok(Self { edge, admin, web, shop })
    }
}

impl Town {
    /// Starts everything on a fresh store.
    pub(super) async fn start(port: u16) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("crosstown-demo-").tempdir();
        let folder = folder.map_err(|error| format!("cannot make a folder: {error}"))?;
        let ports = Ports::choose(port)?;
        fs::write(folder.path().join("crosstown.toml"), configuration(folder.path(), &ports))
            .map_err(|error| format!("cannot write the configuration: {error}"))?;
        let server = start_server(folder.path())?;
        let (services, api_key) = (Vec::new(), String::new());
        let mut town = Self { folder, ports, server, services, api_key };
        town.wait_for_server().await?;
        println!("A server runs on {} with a fresh embedded store.", town.base());

        let body = json!({ "tenant": "demo", "principal": "demo-services", "roles": ["admin"] });
        let key: Json = town.admin()?.post("/api-keys", &body).await.map_err(|e| e.to_string())?;
        town.api_key = key["text"].as_str().unwrap_or_default().to_owned();
        let listen = |port: u16| vec!["--listen".to_owned(), format!("127.0.0.1:{port}")];
        let (web, shop) = (listen(town.ports.web), listen(town.ports.shop));
        town.start_service("web", &web)?;
        town.start_service("shop", &shop)?;
        town.start_service("summary", &[])?;
        for port in [town.ports.web, town.ports.shop] {
            wait_for_port(port).await?;
        }
        println!("Services run as processes of their own: web, shop and summary.");
        Ok(town)
    }

    pub(super) fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.edge)
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A client that carries the services' API key.
    pub(super) fn client(&self) -> Result<Client, String> {
        Client::new(&self.base(), &self.api_key).map_err(|error| error.to_string())
    }

    fn admin(&self) -> Result<Client, String> {
        let key = fs::read_to_string(self.folder.path().join("data.admin-key"))
            .map_err(|error| format!("the server made no admin key: {error}"))?;
        Client::new(&format!("http://127.0.0.1:{}", self.ports.admin), key.trim())
            .map_err(|error| error.to_string())
    }

    /// Kills the server without warning, and starts it again on the same store.
    pub(super) async fn crash_and_restart(&mut self) -> Result<(), String> {
        self.server.kill().await.map_err(|error| format!("cannot kill the server: {error}"))?;
        self.server = start_server(self.folder.path())?;
        self.wait_for_server().await
    }

    /// Waits for Ctrl-C, or for a process to end that should not.
    pub(super) async fn watch(&mut self) -> Result<(), String> {
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return Ok(()),
                ended = self.server.wait() => {
                    return Err(format!("the server has ended: {}", described(ended)));
                }
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
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
        if let Some(pid) = self.server.id() {
            let asked = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await;
            let ended = tokio::time::timeout(Duration::from_secs(20), self.server.wait()).await;
            if asked.is_err() || ended.is_err() {
                let _ = self.server.kill().await;
            }
        }
    }

    fn start_service(&mut self, name: &'static str, args: &[String]) -> Result<(), String> {
        let child = Command::new(this_program()?)
            .args(["example", name, "--node", &self.base()])
            .args(args)
            .env("CROSSTOWN_API_KEY", &self.api_key)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot start the service {name}: {error}"))?;
        self.services.push((name, child));
        Ok(())
    }

    async fn wait_for_server(&mut self) -> Result<(), String> {
        let until = tokio::time::Instant::now() + START;
        loop {
            if let Ok(Some(status)) = self.server.try_wait() {
                return Err(format!("the server has ended: {status}"));
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

fn this_program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))
}

fn start_server(folder: &Path) -> Result<Child, String> {
    Command::new(this_program()?)
        .arg("serve")
        .arg("--config")
        .arg(folder.join("crosstown.toml"))
        .env("CROSSTOWN_LOG", "warn")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start the server: {error}"))
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

fn described(ended: std::io::Result<std::process::ExitStatus>) -> String {
    ended.map_or_else(|error| error.to_string(), |status| status.to_string())
}

fn configuration(folder: &Path, ports: &Ports) -> String {
    let Ports { edge, admin, web, shop } = ports;
    let data = folder.join("data");
    format!(
        r#"[stores]
durable = "embedded:{}"

[edge]
listen = "127.0.0.1:{edge}"

[admin]
listen = "127.0.0.1:{admin}"

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
"#,
        data.display()
    )
}
