//! Clients that we did not write, unmodified.

use integration_tests::{Server, binary, repository};
use serde_json::json;
use std::{
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};
use test_servers::free_ports;

/// Where `cargo xtask install` puts the clients' packages.
fn tools() -> PathBuf {
    let binary = binary();
    let target = binary.ancestors().nth(2).expect("target/<profile>/crosstown").to_owned();
    assert!(
        target.join("clients/node_modules").exists() && target.join("python/bin").exists(),
        "the client packages are missing; install them with `cargo xtask install`"
    );
    target
}

fn told(what: &str, output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {out}{error}");
    out
}

/// Runs a script with Node, from a folder in which it finds its packages.
fn node(script: &str, args: &[&str]) -> String {
    let home = tools().join("clients");
    for entry in std::fs::read_dir(repository().join("crates/integration-tests/clients")).unwrap() {
        let entry = entry.unwrap();
        if entry.path().extension().is_some_and(|extension| extension == "mjs") {
            std::fs::copy(entry.path(), home.join(entry.file_name())).unwrap();
        }
    }
    let output =
        Command::new("node").arg(home.join(script)).args(args).output().expect("node runs");
    told(script, &output)
}

fn with_tokens(run: impl Fn(&[&str]) -> String) -> String {
    let server = Server::start(
        "[realtime]\npersonal_channels = true\n\
         [[realtime.namespaces]]\nname = \"closed\"\nsubscribe = false\n\
         [[realtime.namespaces]]\nname = \"ticks\"\ndelta = true\n\
         [[realtime.namespaces]]\nname = \"lobby\"\npresence = true\njoin_leave = \"asked\"\n\
         [[realtime.namespaces]]\nname = \"price\"\nhistory_size = 2\nrecovery = \"cache\"\n",
    );
    let service = json!({ "kind": "service", "info": { "team": "press" } });
    let peer = server.token_with("acme", "peer", service);
    // The clocks of issuers may be off by thirty seconds, so that this ends in three.
    let soon = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() - 27;
    let ann = json!({
        "lasting": server.token("acme", "ann"),
        "short": server.token_with("acme", "ann", json!({ "exp": soon })),
        "closed": server.token_with("acme", "ann", json!({ "channel": "closed:1" })),
    });
    let said = run(&[&server.base(), &ann.to_string(), &peer]);
    assert!(said.contains("nothing lost: 80 publications in order"), "{said}");
    assert!(said.contains("presence, joins and leaves are told"), "{said}");
    said
}

fn python(args: &[&str]) -> String {
    let script = repository().join("crates/integration-tests/clients/python_client.py");
    let python = tools().join("python/bin/python");
    told("python", &Command::new(python).arg(script).args(args).output().expect("python runs"))
}

#[test]
fn npm_centrifuge_works_unmodified() {
    with_tokens(|args| node("node_client.mjs", args));
}

#[test]
fn npm_centrifuge_works_unmodified_in_protobuf() {
    let said = with_tokens(|args| node("node_protobuf_client.mjs", args));
    assert!(said.contains("spoken in Protobuf to a peer in JSON"), "{said}");
}

#[test]
fn npm_centrifuge_works_in_chromium() {
    for encoding in ["json", "protobuf"] {
        let how = ["websocket", "story", encoding];
        with_tokens(|args| node("browser_client.mjs", &[args, &how].concat()));
    }
}

/// The transports beside WebSockets, with their encodings and media types.
const STREAMS: [(&str, &str, &str); 3] = [
    ("http_stream", "json", "application/x-ndjson"),
    ("http_stream", "protobuf", "application/octet-stream"),
    ("sse", "json", "text/event-stream"),
];

#[test]
fn npm_centrifuge_works_unmodified_over_streams() {
    for (transport, encoding, media) in STREAMS {
        let how = [transport, encoding];
        let said = with_tokens(|args| node("node_stream_client.mjs", &[args, &how].concat()));
        assert!(said.contains(&format!("streamed as {media}\n")), "{said}");
    }
}

#[test]
fn npm_centrifuge_works_in_chromium_over_streams() {
    for (transport, encoding, _) in STREAMS {
        let how = [transport, "story", encoding];
        let said = with_tokens(|args| node("browser_client.mjs", &[args, &how].concat()));
        assert!(said.contains(&format!("over {transport}\n")), "{said}");
    }
}

#[test]
fn npm_centrifuge_recovers_one_and_ten_thousand_publications() {
    let server = Server::start(
        "[realtime]\nrecover_max = 10000\nqueue_bytes_max = 8388608\n\
         [[realtime.namespaces]]\nname = \"deep\"\nhistory_size = 20000\n",
    );
    let peer = server.token_with("acme", "peer", json!({ "kind": "service" }));
    let said = node("node_depth.mjs", &[&server.base(), &server.token("acme", "ann"), &peer]);
    assert!(said.contains("10000 missed and recovered"), "{said}");
}

#[test]
fn fifty_writers_with_npm_centrifuge_lose_no_update() {
    let server = Server::start("[sessions]\nper_user_max = 100\n");
    let said = node("node_writers.mjs", &[&server.base(), &server.token("acme", "ann")]);
    assert!(said.contains("500 updates of 50 writers in one order"), "{said}");
}

/// Ten thousand keys under a thousand updates a second.
fn with_maps(run: impl Fn(&[&str]) -> String) {
    let server = Server::start(
        "[state]\nhistory_max = 100000\n[[realtime.namespaces]]\nname = \"board\"\nmap = true\n\
         [[realtime.namespaces]]\nname = \"brief\"\nmap = true\nentry_ttl = \"1s\"\n",
    );
    let peer = server.token_with("acme", "peer", json!({ "kind": "service" }));
    let said = run(&[&server.base(), &server.token("acme", "ann"), &peer]);
    assert!(said.contains(" updates, the same for 4 followers"), "{said}");
    assert!(said.contains("an entry ends by itself"), "{said}");
    assert!(said.contains("is restored") && said.contains("a board is set and cleared"), "{said}");
    println!("{said}");
}

/// Every transport in each of its encodings; the first and the last, unless `CROSSTOWN_CLIENTS` is
/// `all`, as with `./test --long`.
fn ways(first: [&'static str; 2], last: [&'static str; 2]) -> Vec<[&'static str; 2]> {
    let sockets = ["json", "protobuf"].map(|encoding| ["websocket", encoding]);
    let streams = STREAMS.map(|(transport, encoding, _)| [transport, encoding]);
    match std::env::var("CROSSTOWN_CLIENTS").as_deref() {
        Ok("all") => sockets.into_iter().chain(streams).collect(),
        _ => vec![first, last],
    }
}

#[test]
fn npm_centrifuge_follows_maps() {
    for [transport, encoding] in ways(["websocket", "json"], ["http_stream", "protobuf"]) {
        let how = [transport, encoding];
        with_maps(|args| node("node_maps.mjs", &[args, &how].concat()));
    }
}

#[test]
fn npm_centrifuge_follows_maps_in_chromium() {
    for [transport, encoding] in ways(["websocket", "protobuf"], ["sse", "json"]) {
        let how = [transport, "maps", encoding];
        with_maps(|args| node("browser_client.mjs", &[args, &how].concat()));
    }
}

#[test]
fn npm_centrifuge_obeys_orders() {
    let server = Server::start("[[realtime.namespaces]]\nname = \"closed\"\nsubscribe = false\n");
    let service = server.token_with("acme", "crm", json!({ "kind": "service" }));
    let said = node("node_orders.mjs", &[&server.base(), &server.token("acme", "ann"), &service]);
    assert!(said.contains("in json") && said.contains("in protobuf"), "{said}");
}

#[test]
fn pypi_centrifuge_python_works_unmodified() {
    let said = with_tokens(python);
    assert!(said.contains("spoken in json"), "{said}");
}

#[test]
fn pypi_centrifuge_python_works_unmodified_in_protobuf() {
    let said = with_tokens(|args| python(&[args, &["protobuf"]].concat()));
    assert!(said.contains("spoken in protobuf"), "{said}");
}

/// Its own tests, as they came, which want the server at port 8000: in a network of their own.
#[test]
fn pypi_centrifuge_python_passes_its_own_tests() {
    let suite = tools().join("python-suite");
    let config = repository().join("crates/integration-tests/clients/python_suite.toml");
    let folder = tempfile::tempdir().unwrap();
    let script = "set -eu\nip link set lo up\n\"$1\" serve --config \"$2\" 2>crosstown.log &\n\
        cd \"$3\"\nexec \"$4\" -m unittest discover -s tests";
    let output = Command::new("timeout")
        .args(["300", "unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["bash", "-c", script, "suite"])
        .arg(binary())
        .arg(config)
        .arg(&suite)
        .arg(tools().join("python/bin/python"))
        .current_dir(folder.path())
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let log = std::fs::read_to_string(folder.path().join("crosstown.log")).unwrap_or_default();
    assert!(output.status.success(), "{said}\n{log}");
    assert!(said.contains("Ran 185 tests") && !said.contains("skipped="), "{said}");
}

#[test]
fn kosoku_passes_every_case_of_the_core_and_of_performance() {
    let server = Server::start("");
    let (host, port) = server.edge();
    let address = format!("{host}:{port}");
    let kosoku = tools().join("python/bin/kosoku");
    let report = tempfile::tempdir().unwrap();
    let output = Command::new(kosoku)
        .args(["-p", "2", "-x", "12.*", "-x", "13.*", "-o"])
        .arg(report.path().join("report"))
        .arg(format!("{address}/debug/echo"))
        .output()
        .expect("kosoku runs");
    let said = told("kosoku", &output);
    assert!(said.contains("301") && !said.to_lowercase().contains("failed"), "{said}");
}

/// A demo, which takes its services along when it is dropped.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

#[test]
fn the_demos_page_works_in_chromium() {
    let [port] = free_ports().unwrap();
    let demo = Command::new(binary())
        .args(["demo", "--port", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the demo starts");
    let demo = Demo(demo);
    let url = format!("http://127.0.0.1:{port}/");
    let reached = (0..300).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let picture = tools().join("demo.png");
    let said = reached.then(|| {
        // The door opens once the web service runs behind it.
        std::thread::sleep(Duration::from_millis(500));
        node("demo_page.mjs", &[&url, picture.to_str().unwrap()])
    });
    drop(demo);
    assert!(
        said.is_some_and(|said| said.contains("traffic is shown live")),
        "the demo does not start"
    );
}
