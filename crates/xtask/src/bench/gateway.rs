//! CPU per request beside nginx, HAProxy, Envoy and Traefik, and what our own features, routes and
//! limits cost; see `bench/gateway/README.md`.

mod ask;
mod in_process;
mod memory;
mod ours;
mod peers;
pub(super) mod ratios;
mod reload;
pub(super) mod report;
pub(super) mod rounds;
mod routes;

use crate::{
    bench::{folder, origin::Origin, print_circumstances, release},
    command::output,
    install,
};
pub(super) use ours::{Node, make_key};
pub(super) use peers::Peer;
use report::Report;
use rounds::Subject;
use std::path::PathBuf;

/// The core of the proxies.
pub(super) const PROXIES: u8 = 0;
/// The core of the service and of the load.
pub(super) const LOAD: u8 = 1;
/// The shortest and the longest table of routes.
const FEW: usize = 10;
const MANY: usize = 10_000;

/// What every part of the benchmark stands on.
pub(super) struct Ground {
    pub(super) folder: PathBuf,
    pub(super) crosstown: PathBuf,
    pub(super) origin: Origin,
}

/// Runs all of it.
///
/// # Errors
/// What failed, after the figures.
pub(super) fn run() -> Result<(), String> {
    install::debian(&["nginx-light", "haproxy", "wrk", "util-linux", "curl"])?;
    let proxies = install::proxies()?;
    let crosstown = release("crosstown")?;
    print_circumstances();
    print_versions(&proxies)?;
    let folder = folder("gateway")?;
    let origin = Origin::start(&folder, Some(LOAD))?;
    let ground = Ground { folder, crosstown, origin };
    let mut report = Report::default();
    in_process::run(&ground, &mut report)?;
    memory::run(&ground, &mut report)?;
    let errors = beside_each_other(&ground, &proxies, &mut report)?;
    report.end()?;
    if errors == 0 { Ok(()) } else { Err(format!("{errors} requests failed")) }
}

fn print_versions(proxies: &install::Proxies) -> Result<(), String> {
    let (envoy, traefik) = (proxies.envoy.display(), proxies.traefik.display());
    let each = format!(
        "nginx -v 2>&1; haproxy -v | head -1; {envoy} --version | grep version; \
         {traefik} version | head -1; wrk -v 2>&1 | head -1"
    );
    println!("{}", output("sh", &["-c", &each])?.trim());
    Ok(())
}

/// Lets all proxies take turns, then reloads the node with the most routes. Answers how many
/// requests failed.
fn beside_each_other(
    ground: &Ground,
    proxies: &install::Proxies,
    report: &mut Report,
) -> Result<u64, String> {
    let instances = [("INSTANCES", ground.origin.instances())];
    let ours =
        Node::start(ground, Some(PROXIES), "crosstown", "gateway/crosstown.toml", &instances)?;
    let key = make_key(&ground.crosstown, &ours.config)?;
    let token = ours::make_token(&ground.crosstown, &ours.config)?;
    let socket = reload::service().map_err(|error| error.to_string())?;
    let table = |name: &str, count| {
        let more = [("ROUTES", routes::table(count)), ("SOCKET", socket.to_string())];
        Node::start(ground, Some(PROXIES), name, "gateway/many-routes.toml", &more)
    };
    let (few, many) = (table("few", FEW)?, table("many", MANY)?);
    let nginx_plain = Peer::nginx(ground, "plain", &[])?;
    let nginx_loaded = Peer::nginx(ground, "loaded", &[("KEY", key.clone())])?;
    let haproxy = Peer::haproxy(ground)?;
    let envoy = Peer::envoy(ground, proxies)?;
    let traefik = Peer::traefik(ground, proxies)?;

    let node = |name, node: &Node, path| Subject::new(name, &node.server, node.port, path);
    let peer = |name, peer: &Peer, path| Subject::new(name, &peer.server, peer.port, path);
    // Who is compared most closely stands beside each other.
    let mut subjects = [
        peer("envoy_plain", &envoy, "/plain"),
        peer("traefik_plain", &traefik, "/plain"),
        peer("haproxy_plain", &haproxy, "/plain"),
        peer("nginx_plain", &nginx_plain, "/plain"),
        node("plain", &ours, "/plain"),
        node("token", &ours, "/loaded").with(format!("Authorization: Bearer {token}")),
        node("p2c64", &ours, "/wide"),
        node("routes_10", &few, "/plain"),
        node("routes_10000", &many, "/plain"),
        node("loaded", &ours, "/loaded").with(format!("X-API-Key: {key}")),
        peer("nginx_loaded", &nginx_loaded, "/loaded").with(format!("X-API-Key: {key}")),
    ];
    rounds::run(&mut subjects, &ground.origin)?;
    ratios::tell(&subjects, ratios::COMPARISONS, report)?;
    reload::run(&many, MANY, report)?;
    Ok(subjects.iter().map(Subject::errors).sum())
}
