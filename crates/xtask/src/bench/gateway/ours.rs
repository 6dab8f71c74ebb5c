//! Nodes of ours.

use super::Ground;
use crate::{
    bench::{filled, write},
    process::{Server, free_ports, on_core},
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

pub(in crate::bench) struct Node {
    pub(in crate::bench) server: Server,
    pub(in crate::bench) port: u16,
    pub(super) admin: u16,
    pub(super) config: PathBuf,
    key_file: PathBuf,
}

impl Node {
    /// Starts the node `name` by a file of `bench`, filled in with `more` besides what
    /// each node has, on one `core` if that is given.
    pub(in crate::bench) fn start(
        ground: &Ground,
        core: Option<u8>,
        name: &str,
        file: &str,
        more: &[(&str, String)],
    ) -> Result<Self, String> {
        let [port, admin] = free_ports()?;
        let mut values = vec![
            ("DIR", ground.folder.display().to_string()),
            ("NAME", name.to_owned()),
            ("BACKEND", ground.origin.port.to_string()),
            ("PORT", port.to_string()),
            ("ADMIN", admin.to_string()),
        ];
        values.extend_from_slice(more);
        let config = ground.folder.join(format!("{name}.toml"));
        write(&config, &filled(file, &values)?)?;
        let log = ground.folder.join(format!("{name}.log"));
        let log = File::create(log).map_err(|error| error.to_string())?;
        let mut command = on_core(core, &ground.crosstown);
        let command = command.arg("serve").arg("--config").arg(&config).stderr(log);
        let server = Server::start(command, port)?;
        let key_file = ground.folder.join(format!("{name}-data.admin-key"));
        Ok(Self { server, port, admin, config, key_file })
    }

    /// An API key with a role.
    pub(in crate::bench) fn key_of(&self, crosstown: &Path, role: &str) -> Result<String, String> {
        let args =
            ["api-key", "create", "--tenant", "acme", "--principal", "bench", "--role", role];
        made(crosstown, &self.config, &args)
    }

    /// The header field by which the operator is known.
    pub(super) fn operator(&self) -> Result<String, String> {
        let key = fs::read_to_string(&self.key_file)
            .map_err(|error| format!("{}: {error}", self.key_file.display()))?;
        Ok(format!("Authorization: Bearer {}", key.trim()))
    }
}

/// An API key of a node with this configuration.
pub(in crate::bench) fn make_key(crosstown: &Path, config: &Path) -> Result<String, String> {
    made(crosstown, config, &["api-key", "create", "--tenant", "acme", "--principal", "bench"])
}

/// A JSON Web Token for it.
pub(super) fn make_token(crosstown: &Path, config: &Path) -> Result<String, String> {
    made(crosstown, config, &["token", "--tenant", "acme", "--user", "bench"])
}

fn made(crosstown: &Path, config: &Path, args: &[&str]) -> Result<String, String> {
    let made = Command::new(crosstown).args(args).arg("--config").arg(config).output();
    let made = made.map_err(|error| format!("{}: {error}", args[0]))?;
    let credential = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    if credential.is_empty() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned());
    }
    Ok(credential)
}
