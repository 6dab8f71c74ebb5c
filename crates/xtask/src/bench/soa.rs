//! CPU per call between services beside plain proxying; see `bench/soa/README.md`.

use crate::{
    bench::{
        folder,
        gateway::{
            Ground, LOAD, Node, PROXIES, Peer,
            ratios::{self, Comparison},
            report::Report,
            rounds::{self, Subject},
        },
        origin::Origin,
        print_circumstances, release, write,
    },
    command::root,
    install,
};
use std::fs;

const COMPARISONS: &[Comparison] = &[
    Comparison {
        name: "soa_call_vs_gateway_plain",
        short: "soa_call",
        ours: "soa_call",
        theirs: "plain",
        bar: Some(1.15),
    },
    Comparison {
        name: "bridge_validation_vs_plain",
        short: "bridged",
        ours: "bridged",
        theirs: "posted",
        bar: Some(1.2),
    },
    Comparison {
        name: "soa_call_vs_nginx_plain",
        short: "nginx",
        ours: "soa_call",
        theirs: "nginx_plain",
        bar: None,
    },
];
/// What the document's operation takes.
const STEP: &str = r#"{"title": "pack", "days": 3}"#;

/// Runs it.
///
/// # Errors
/// What failed, after the figures.
pub(super) fn run() -> Result<(), String> {
    install::debian(&["nginx-light", "wrk", "util-linux", "curl"])?;
    let crosstown = release("crosstown")?;
    print_circumstances();
    let folder = folder("soa")?;
    let origin = Origin::start(&folder, Some(LOAD))?;
    let document = fs::read_to_string(root().join("examples/realms/plans.yaml"));
    let document = document.map_err(|error| format!("the document: {error}"))?;
    let unlimited =
        document.replace("requests: 5, period: 10s", "requests: 900000000, period: 10s");
    if unlimited == document {
        return Err("the document's limit is not where it was".into());
    }
    let file = folder.join("plans.yaml");
    write(&file, &unlimited)?;
    let ground = Ground { folder, crosstown, origin };
    let more = [("DOCUMENT", file.display().to_string())];
    let node = Node::start(&ground, Some(PROXIES), "crosstown", "soa/crosstown.toml", &more)?;
    let nginx = Peer::nginx(&ground, "plain", &[])?;
    let key = node.key_of(&ground.crosstown, "realm-experience")?;
    let credential = format!("X-API-Key: {key}");
    let subject = |name, path| Subject::new(name, &node.server, node.port, path);
    let script = |name: &str| ground.folder.join(format!("{name}.lua"));
    let calls = "/crosstown/v1/call/solution";
    let mut subjects = [
        Subject::new("nginx_plain", &nginx.server, nginx.port, "/plain"),
        subject("plain", "/plain"),
        subject("soa_call", &format!("{calls}/origin/plain")).with(credential.clone()),
        subject("posted", "/plain").posting(&script("posted"), STEP)?,
        subject("bridged", &format!("{calls}/plans/plans/first/steps"))
            .with(credential)
            .posting(&script("bridged"), STEP)?,
    ];
    rounds::run(&mut subjects, &ground.origin)?;
    let mut report = Report::default();
    ratios::tell(&subjects, COMPARISONS, &mut report)?;
    report.end()?;
    let errors: u64 = subjects.iter().map(Subject::errors).sum();
    if errors == 0 { Ok(()) } else { Err(format!("{errors} requests failed")) }
}
