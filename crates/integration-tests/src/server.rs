//! The real binary, in a process of its own.

use client::Client;
use serde_json::{Value as Json, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use test_servers::free_ports;
use traffic_cop::identity::jws;

/// The shared secret of the test issuer.
const SECRET: &str = "the-secret-of-the-test-issuer-0123456789";

/// A running node; it is killed when dropped, and its folder goes with it.
pub struct Server {
    folder: TempDir,
    child: Child,
    edge: u16,
    admin: u16,
}

/// The checkout.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The binary under test: `CROSSTOWN_BIN`, or the one beside this test's build.
///
/// # Panics
/// If it was not built; `cargo xtask test` builds it.
#[must_use]
pub fn binary() -> PathBuf {
    let beside = || {
        let this = std::env::current_exe().expect("a test has a path");
        let profile = this.ancestors().nth(2).expect("target/<profile>/deps/<test>");
        profile.join("crosstown")
    };
    let path = std::env::var_os("CROSSTOWN_BIN").map_or_else(beside, PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing; build it with `cargo build -p crosstown --features echo`",
        path.display()
    );
    path
}

impl Server {
    /// Starts a node on a fresh embedded store. `config` follows the listeners and a test
    /// issuer; it may not set `stores`, `edge.listen` or `admin`.
    #[must_use]
    pub fn start(config: &str) -> Self {
        Self::start_with("", config)
    }

    /// As [`Self::start`], with more keys of the table `edge`.
    #[must_use]
    pub fn start_with(edge_keys: &str, config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let stores = crate::stores::fresh(folder.path());
        Self::start_in(folder, &stores, edge_keys, config)
    }

    /// As [`Self::start`], on stores that several nodes may share: the keys of the table
    /// `stores`.
    #[must_use]
    pub fn start_on(stores: &str, config: &str) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), stores, "", config)
    }

    /// As [`Self::start`], on the embedded store alone: for what there is not where nodes share
    /// their stores, such as the live tier.
    #[must_use]
    pub fn start_alone(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let stores = format!("durable = \"embedded:{}/data\"", folder.path().display());
        Self::start_in(folder, &stores, "", config)
    }

    /// What a node says that does not start on these stores with this configuration.
    ///
    /// # Panics
    /// If it starts, or does not end within a minute.
    #[must_use]
    pub fn refused_on(stores: &str, config: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let (edge, admin) = configure(&folder, stores, "", config);
        let child = spawn(folder.path());
        let mut server = Self { folder, child, edge, admin };
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            assert!(!server.log_says_serving() && Instant::now() < until, "it is not refused");
            if let Some(status) = server.child.try_wait().expect("a process") {
                assert!(!status.success(), "{}", server.log());
                return server.log();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn start_in(folder: TempDir, stores: &str, edge_keys: &str, config: &str) -> Self {
        let (edge, admin) = configure(&folder, stores, edge_keys, config);
        let child = spawn(folder.path());
        let mut server = Self { folder, child, edge, admin };
        server.wait();
        server
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.edge)
    }

    /// The address of the edge, for raw sockets.
    #[must_use]
    pub fn edge(&self) -> (&'static str, u16) {
        ("127.0.0.1", self.edge)
    }

    /// `http://127.0.0.1:PORT` of the operator's listener.
    #[must_use]
    pub fn admin_base(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The node's folder: `crosstown.toml`, `data`, `log`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A JSON Web Token of the test issuer, for an hour.
    #[must_use]
    pub fn token(&self, tenant: &str, user: &str) -> String {
        self.token_with(tenant, user, json!({}))
    }

    /// As [`Self::token`], with more claims or others.
    ///
    /// # Panics
    /// Never, for claims that are an object.
    #[must_use]
    pub fn token_with(&self, tenant: &str, user: &str, more: Json) -> String {
        let now = clock_seconds();
        let mut claims = json!({
            "iss": "test", "aud": "crosstown", "exp": now + 3600, "sub": user, "tenant": tenant,
        });
        for (name, value) in more.as_object().expect("claims are an object") {
            claims[name] = value.clone();
        }
        jws::sign(SECRET.as_bytes(), &claims).expect("claims can be signed")
    }

    /// A client with a token for `user` of `tenant`.
    ///
    /// # Panics
    /// Never: the address is one.
    #[must_use]
    pub fn client(&self, tenant: &str, user: &str) -> Client {
        Client::new(&self.base(), &self.token(tenant, user)).expect("an address")
    }

    /// A client of the admin listener.
    ///
    /// # Panics
    /// If the node made no admin key.
    #[must_use]
    pub fn admin(&self) -> Client {
        let file = self.folder.path().join("data.admin-key");
        let key = fs::read_to_string(file).expect("the node makes an admin key");
        Client::new(&format!("http://127.0.0.1:{}", self.admin), key.trim()).expect("an address")
    }

    /// What the node's metrics say of `name`, labels included.
    ///
    /// # Panics
    /// If they do not name it.
    pub async fn metric(&self, name: &str) -> u64 {
        let answer = self.admin().call(http::Method::GET, "/metrics", None).await;
        let text = String::from_utf8(answer.expect("metrics").body.to_vec()).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a whole number")
    }

    /// A new API key for a service of `tenant`.
    ///
    /// # Panics
    /// If the node does not make it.
    pub async fn api_key(&self, tenant: &str, principal: &str) -> String {
        let body = json!({ "tenant": tenant, "principal": principal });
        let key: Json = self.admin().post("/api-keys", &body).await.expect("an API key");
        key["text"].as_str().expect("a text").to_owned()
    }

    /// Ends the process at once, as `kill -9` does.
    ///
    /// # Panics
    /// If there is no process to end.
    pub fn kill(&mut self) {
        self.child.kill().expect("a process to kill");
        self.child.wait().expect("its end");
    }

    /// Starts the node again on the same folder.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start_again(&mut self) {
        self.child = spawn(self.folder.path());
        self.wait();
    }

    /// Stops the process for a while (SIGSTOP): its connections stay, and nobody answers.
    ///
    /// # Panics
    /// If the signal cannot be sent.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets the process go on after [`Self::pause`].
    ///
    /// # Panics
    /// If the signal cannot be sent.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "SIG{name} is not sent");
    }

    /// Asks the process to end (SIGTERM) and waits until it has.
    ///
    /// # Panics
    /// If it does not within half a minute, or not in order.
    pub fn stop(&mut self) {
        self.signal("TERM");
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().expect("a process") {
                assert!(status.success(), "the node ended with {status}: {}", self.log());
                return;
            }
            assert!(Instant::now() < until, "the node does not stop: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the node has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn wait(&mut self) {
        let until = Instant::now() + Duration::from_secs(60);
        while !self.log_says_serving() {
            if let Some(status) = self.child.try_wait().expect("a process") {
                panic!("the node ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < until, "the node does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log_says_serving(&self) -> bool {
        self.log().contains("crosstown serves")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes the configuration of a node, and answers the ports of its listeners.
fn configure(folder: &TempDir, stores: &str, edge_keys: &str, config: &str) -> (u16, u16) {
    let [edge, admin] = free_ports().expect("free ports");
    let admin_key = folder.path().join("data.admin-key");
    let head = format!(
        "[stores]\n{stores}\n\
         [edge]\nlisten = \"127.0.0.1:{edge}\"\nconnections_per_ip_max = 20000\n{edge_keys}\n\
         [admin]\nlisten = \"127.0.0.1:{admin}\"\nkey_file = \"{}\"\n\
         [[identity.issuers]]\nname = \"test\"\nissuer = \"test\"\naudience = [\"crosstown\"]\n\
         algorithms = [\"HS256\"]\nsecret = \"{SECRET}\"\n",
        admin_key.display()
    );
    fs::write(folder.path().join("crosstown.toml"), format!("{head}{config}"))
        .expect("a configuration");
    (edge, admin)
}

fn spawn(folder: &Path) -> Child {
    let log = fs::File::create(folder.join("log")).expect("a log");
    Command::new(binary())
        .arg("serve")
        .arg("--config")
        .arg(folder.join("crosstown.toml"))
        .env("CROSSTOWN_LOG", "info")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the binary starts")
}

#[expect(clippy::disallowed_methods, reason = "a token is for the real clock of the node")]
fn clock_seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}
