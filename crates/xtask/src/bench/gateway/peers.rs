//! The other proxies, each with one thread on the core of the proxies.

use super::Ground;
use crate::{
    bench::{filled, write},
    install::Proxies,
    process::{Server, free_ports, on_core},
};
use std::{fs::File, path::Path};

/// A proxy that runs.
pub(in crate::bench) struct Peer {
    pub(in crate::bench) server: Server,
    pub(in crate::bench) port: u16,
}

impl Peer {
    /// nginx by `{name}.conf`.
    pub(in crate::bench) fn nginx(
        ground: &Ground,
        name: &str,
        more: &[(&str, String)],
    ) -> Result<Self, String> {
        start(ground, "nginx".as_ref(), &format!("{name}.conf"), more, &["-c"], &[])
    }

    pub(super) fn haproxy(ground: &Ground) -> Result<Self, String> {
        // In the foreground.
        start(ground, "haproxy".as_ref(), "haproxy.cfg", &[], &["-db", "-f"], &[])
    }

    pub(super) fn envoy(ground: &Ground, proxies: &Proxies) -> Result<Self, String> {
        let args = ["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c"];
        start(ground, &proxies.envoy, "envoy.yaml", &[], &args, &[])
    }

    pub(super) fn traefik(ground: &Ground, proxies: &Proxies) -> Result<Self, String> {
        let routes = [("BACKEND", ground.origin.port.to_string())];
        let routes = filled("gateway/traefik-routes.yaml", &routes)?;
        write(&ground.folder.join("traefik-routes.yaml"), &routes)?;
        let one_thread = [("GOMAXPROCS", "1")];
        start(ground, &proxies.traefik, "traefik.yaml", &[], &["--configFile"], &one_thread)
    }
}

/// Starts `program` with a file of `bench/gateway` as its last argument.
fn start(
    ground: &Ground,
    program: &Path,
    file: &str,
    more: &[(&str, String)],
    args: &[&str],
    environment: &[(&str, &str)],
) -> Result<Peer, String> {
    let [port] = free_ports()?;
    let mut values = vec![
        ("DIR", ground.folder.display().to_string()),
        ("BACKEND", ground.origin.port.to_string()),
        ("PORT", port.to_string()),
    ];
    values.extend_from_slice(more);
    let config = ground.folder.join(file);
    write(&config, &filled(&format!("gateway/{file}"), &values)?)?;
    let log = ground.folder.join(format!("{file}.log"));
    let log = File::create(log).map_err(|error| error.to_string())?;
    let mut command = on_core(Some(super::PROXIES), program);
    command.args(args).arg(&config).envs(environment.iter().copied()).stderr(log);
    Ok(Peer { server: Server::start(&mut command, port)?, port })
}
