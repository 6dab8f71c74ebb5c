//! The three servers.

use crate::{
    bench::{filled, write},
    install,
    process::{Server, free_ports},
};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

/// As many as a run of the load can need: connections that listen, and those that publish.
const TOKENS: usize = 19_200;
/// The servers' core.
const CORE: &str = "0";

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Crosstown,
    SocketIo,
    Sockudo,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Crosstown, Self::SocketIo, Self::Sockudo];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Crosstown => "crosstown",
            Self::SocketIo => "socketio",
            Self::Sockudo => "sockudo",
        }
    }

    /// What the load calls its protocol.
    pub(super) fn wire(self) -> &'static str {
        match self {
            Self::Crosstown => "centrifugo",
            Self::SocketIo => "socket-io",
            Self::Sockudo => "pusher",
        }
    }
}

/// What is run, and where.
pub(super) struct Programs {
    crosstown: PathBuf,
    pub(super) loadgen: PathBuf,
    peers: Option<Peers>,
    folder: PathBuf,
    /// Tokens for Crosstown, a line each.
    tokens: Vec<String>,
}

/// The servers that ours is compared with.
pub(super) struct Peers {
    socket_io: PathBuf,
    sockudo: PathBuf,
}

impl Peers {
    /// Installs what is missing; Sockudo takes some minutes to build.
    ///
    /// # Errors
    /// What could not be installed.
    pub(super) fn install() -> Result<Self, String> {
        Ok(Self { socket_io: install::socket_io()?, sockudo: install::sockudo()? })
    }
}

/// A server that runs.
pub(super) struct Running {
    pub(super) kind: Kind,
    pub(super) server: Server,
    pub(super) port: u16,
}

impl Programs {
    pub(super) fn new(
        crosstown: PathBuf,
        loadgen: PathBuf,
        peers: Option<Peers>,
        folder: PathBuf,
    ) -> Result<Self, String> {
        let tokens = Vec::new();
        let mut programs = Self { crosstown, loadgen, peers, folder, tokens };
        let config = programs.folder.join("tokens.toml");
        write(&config, &programs.config(1, 2)?)?;
        let made = Command::new(&programs.crosstown)
            .args(["token", "--user", "load", "--tenant", "bench", "--ttl", "2h"])
            .args(["--count", &TOKENS.to_string(), "--config"])
            .arg(&config)
            .output()
            .map_err(|error| format!("tokens: {error}"))?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into_owned());
        }
        let tokens = String::from_utf8_lossy(&made.stdout);
        programs.tokens = tokens.lines().map(str::to_owned).collect();
        Ok(programs)
    }

    /// Tokens for as many, if the server takes any.
    pub(super) fn tokens(&self, kind: Kind, count: usize) -> &[String] {
        match kind {
            Kind::Crosstown => &self.tokens[..count.min(self.tokens.len())],
            Kind::SocketIo | Kind::Sockudo => &[],
        }
    }

    /// Starts one anew, on its core, with nothing in it.
    pub(super) fn start(&self, kind: Kind) -> Result<Running, String> {
        let [port, admin] = free_ports()?;
        let peers = || self.peers.as_ref().ok_or("this part has no peers");
        let file = |name: &str| self.folder.join(format!("{}-{port}.{name}", kind.name()));
        let mut command = Command::new("taskset");
        command.args(["-c", CORE]);
        match kind {
            Kind::Crosstown => {
                let config = file("toml");
                write(&config, &self.config(port, admin)?)?;
                command.arg(&self.crosstown).args(["serve", "--config"]).arg(config);
            }
            Kind::SocketIo => {
                command.arg("node").arg(&peers()?.socket_io).arg(port.to_string());
            }
            Kind::Sockudo => {
                let config = file("toml");
                let values = [("PORT", port.to_string())];
                write(&config, &filled("sockets/sockudo.toml", &values)?)?;
                command.arg(&peers()?.sockudo).arg("--config").arg(config);
            }
        }
        let log = |name| File::create(file(name)).map_err(|error| error.to_string());
        command.current_dir(&self.folder).stdout(log("out")?).stderr(log("log")?);
        Ok(Running { kind, server: Server::start(&mut command, port)?, port })
    }

    fn config(&self, edge: u16, admin: u16) -> Result<String, String> {
        let data = |folder: &Path| folder.join(format!("data-{edge}")).display().to_string();
        let values = [
            ("EDGE", edge.to_string()),
            ("ADMIN", admin.to_string()),
            ("DATA", data(&self.folder)),
        ];
        filled("sockets/crosstown.toml", &values)
    }
}
