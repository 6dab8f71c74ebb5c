//! A server that all tests of one binary share.

use crate::{Postgres, Process, Redis, RedisCluster};
use std::{
    io,
    ops::Deref,
    process::{Child, Command, Stdio},
};

/// A server kept in a `static`, where it is never dropped: it ends when this process does,
/// however that happens. A shell waits for the end of a pipe that this process holds open,
/// then ends the servers by their process ids and removes their folders.
#[derive(Debug)]
pub struct Shared<T> {
    server: T,
    _leash: Child,
}

/// What can be shared.
pub trait Server {
    /// Its processes and their folders.
    fn parts(&self) -> Vec<(&Process, &std::path::Path)>;
}

impl Server for Redis {
    fn parts(&self) -> Vec<(&Process, &std::path::Path)> {
        vec![(self.process(), self.folder())]
    }
}

impl Server for Postgres {
    fn parts(&self) -> Vec<(&Process, &std::path::Path)> {
        vec![(self.process(), self.folder())]
    }
}

impl Server for RedisCluster {
    fn parts(&self) -> Vec<(&Process, &std::path::Path)> {
        self.nodes().iter().flat_map(Server::parts).collect()
    }
}

impl<T: Server> Shared<T> {
    /// Lets `server` end with this process.
    ///
    /// # Errors
    /// If the shell cannot be started.
    pub fn new(server: T) -> io::Result<Self> {
        let mut leash = Command::new("sh");
        // `$1` processes, then folders.
        leash.args(["-c", "read -r _; eval \"kill $1\"; sleep 1; shift; rm -rf -- \"$@\"", "sh"]);
        let parts = server.parts();
        let pids: Vec<String> = parts.iter().map(|(one, _)| one.pid().to_string()).collect();
        leash.arg(pids.join(" ")).args(parts.iter().map(|(_, folder)| folder));
        let leash =
            leash.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { server, _leash: leash })
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.server
    }
}
