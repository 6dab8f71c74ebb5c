//! The service behind every proxy: an nginx that counts the requests it answers.

use crate::{
    bench::{filled, write},
    command::output,
    process::{Server, free_ports, on_core},
};
use std::path::Path;

/// Addresses on which it listens, each an instance to who balances over them.
const ADDRESSES: u8 = 64;

pub(super) struct Origin {
    pub(super) port: u16,
    _server: Server,
}

impl Origin {
    /// Starts it, on one `core` if that is given, with its files in `folder`.
    pub(super) fn start(folder: &Path, core: Option<u8>) -> Result<Self, String> {
        let [port] = free_ports()?;
        let listen = addresses().map(|ip| format!("listen {ip}:{port} backlog=4096;"));
        let values = [
            ("DIR", folder.display().to_string()),
            ("LISTEN", listen.collect::<Vec<_>>().join(" ")),
            ("BODY", "x".repeat(1024)),
        ];
        let file = folder.join("backend.conf");
        write(&file, &filled("gateway/backend.conf", &values)?)?;
        let mut command = on_core(core, "nginx".as_ref());
        let server = Server::start(command.arg("-c").arg(&file), port)?;
        Ok(Self { port, _server: server })
    }

    /// How many requests it has answered, this question included.
    pub(super) fn counted(&self) -> Result<u64, String> {
        let status = output("curl", &["-fs", &format!("http://127.0.0.1:{}/count", self.port)])?;
        let line = status.lines().nth(2).unwrap_or_default();
        let count = line.split_whitespace().nth(2).and_then(|count| count.parse().ok());
        count.ok_or_else(|| format!("the backend does not count: {status}"))
    }

    /// All that it listens on, as a list of instances in TOML.
    pub(super) fn instances(&self) -> String {
        let each = addresses().map(|ip| format!("\"http://{ip}:{}\"", self.port));
        each.collect::<Vec<_>>().join(", ")
    }
}

fn addresses() -> impl Iterator<Item = String> {
    (1..=ADDRESSES).map(|last| format!("127.0.0.{last}"))
}
