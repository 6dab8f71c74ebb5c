//! gRPC by servers and clients that we did not write: grpcio, unmodified, on both sides.

use integration_tests::{Server, binary, repository};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};
use tempfile::TempDir;
use test_servers::{Authority, Process, free_ports};

/// The Python of `cargo xtask install`.
fn python() -> PathBuf {
    let target = binary().ancestors().nth(2).expect("target/<profile>/crosstown").to_owned();
    let python = target.join("python/bin/python");
    assert!(python.exists(), "the packages are missing; install them with `cargo xtask install`");
    python
}

fn script(name: &str) -> Command {
    let mut command = Command::new(python());
    command.arg(repository().join("crates/integration-tests/clients").join(name));
    command
}

/// A server of grpcio that listens on a free port.
fn service(folder: &TempDir, name: &str) -> Process {
    let [port] = free_ports().unwrap();
    service_at(folder.path(), name, port)
}

fn service_at(folder: &Path, name: &str, port: u16) -> Process {
    let mut command = script("grpc_server.py");
    command.args([&port.to_string(), name]);
    Process::start(&mut command, port, &folder.join(format!("{name}.log"))).unwrap()
}

fn client(story: &str, target: &str, token: &str, ca: &str, more: &[&str]) -> Command {
    let mut command = script("grpc_client.py");
    command.args([story, target, token, ca]).args(more);
    command
}

fn said(story: &str, output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{story}: {out}{error}");
    out
}

fn tell(story: &str, target: &str, token: &str, more: &[&str]) -> String {
    let output = client(story, target, token, "-", more).output().expect("python runs");
    said(story, &output)
}

fn target(server: &Server) -> String {
    let (host, port) = server.edge();
    format!("{host}:{port}")
}

/// A service of gRPC at these instances, and a route to it.
fn config(instances: &[&Process], service: &str, route: &str) -> String {
    let instances: Vec<String> =
        instances.iter().map(|process| format!("\"http://{}\"", process.address())).collect();
    format!(
        "[services.echo]\nprotocol = \"h2\"\ninstances = [{}]\n{service}\n\
         [[routes]]\nname = \"echo\"\nservice = \"echo\"\nprefix = \"/echo.Echo\"\n{route}\n",
        instances.join(", ")
    )
}

#[test]
fn all_four_kinds_pass_with_what_they_say_of_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder, "one");
    let route = "auth = \"none\"\nbody_bytes_max = 33554432";
    let server = Server::start(&config(&[&service], "", route));
    for story in ["kinds", "sizes", "many", "cancels"] {
        let said = tell(story, &target(&server), "-", &[]);
        assert!(!said.is_empty(), "{story}");
    }
}

#[test]
fn clients_by_tls_are_served_and_known() {
    let folder = tempfile::tempdir().unwrap();
    let mut authority = Authority::new(folder.path(), "ca");
    let own = authority.server("server", &["localhost"]);
    let service = service(&folder, "one");
    let tls = format!(
        "[edge.tls]\ncertificate = \"{}\"\nkey = \"{}\"\n",
        own.certificate.display(),
        own.key.display()
    );
    let server = Server::start(&format!("{tls}{}", config(&[&service], "", "")));
    let target = format!("localhost:{}", server.edge().1);
    let ca = folder.path().join("ca.pem");
    let token = server.token("acme", "ann");
    let mut command = client("kinds", &target, &token, ca.to_str().unwrap(), &[]);
    said("kinds", &command.output().expect("python runs"));
}

#[test]
fn deadlines_of_a_client_shrink_and_end_the_call() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder, "one");
    let server = Server::start(&config(&[&service], "", "auth = \"none\"\ntimeout = \"3s\""));
    tell("deadlines", &target(&server), "-", &[]);
}

#[test]
fn errors_of_the_gateway_are_errors_of_grpc() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder, "one");
    let refused = |config: &str, token: bool, status: &str, code: &str| {
        let server = Server::start(config);
        let token = if token { server.token("acme", "ann") } else { "-".into() };
        tell("refusal", &target(&server), &token, &[status, code])
    };
    let open = "auth = \"none\"";
    let echo = |service_keys: &str, route: &str| config(&[&service], service_keys, route);
    refused(&echo("", ""), false, "UNAUTHENTICATED", "unauthenticated");
    refused(&echo("", "roles = [\"boss\"]"), true, "PERMISSION_DENIED", "forbidden");
    let http1 = echo("", open).replace("\"h2\"", "\"http1\"");
    refused(&http1, false, "UNIMPLEMENTED", "not_implemented");
    let elsewhere = echo("", open).replace("/echo.Echo", "/other.Other");
    refused(&elsewhere, false, "UNIMPLEMENTED", "no_route");
    let nowhere = {
        let [port] = free_ports().unwrap();
        echo("", open).replace(&service.address().port().to_string(), &port.to_string())
    };
    refused(&nowhere, false, "UNAVAILABLE", "upstream_unreachable");

    let limit = "[[limits]]\nname = \"one\"\nper = \"route\"\nrequests = 1\nperiod = \"1h\"\n";
    let server = Server::start(&format!("{limit}{}", echo("", open)));
    tell("limited", &target(&server), "-", &[]);
}

#[test]
fn an_instance_that_restarts_fails_no_call() {
    let folder = tempfile::tempdir().unwrap();
    let left = service(&folder, "left");
    let right = service(&folder, "right");
    let balance = "balance = \"round_robin\"";
    let server = Server::start(&config(&[&left, &right], balance, "auth = \"none\""));
    let mut calls = client("peers", &target(&server), "-", "-", &["6"]);
    let calls = std::thread::spawn(move || calls.output().expect("python runs"));
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(1500));
        // It says goodbye, and ends once its calls have.
        let pid = left.pid().to_string();
        if Command::new("kill").args(["-0", &pid]).status().unwrap().success() {
            Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        }
    }
    let said = said("peers", &calls.join().unwrap());
    assert!(said.contains("peer: left") && said.contains("peer: right"), "{said}");
    // One for each of the client's threads, at most.
    let cancelled = said.lines().find_map(|line| line.strip_prefix("cancelled "));
    assert!(cancelled.is_none_or(|count| count.parse::<u32>().unwrap() <= 8), "{said}");
}

#[tokio::test]
async fn an_instance_that_does_not_serve_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let left = service(&folder, "left");
    let right = service(&folder, "right");
    let health = "health = { grpc = \"echo.Echo\", interval = \"50ms\" }";
    let server = Server::start(&config(&[&left, &right], health, "auth = \"none\""));
    let peers = || tell("peers", &target(&server), "-", &["1"]);
    let until = async |fit: usize| {
        for _ in 0..300 {
            let services: serde_json::Value = server.admin().get("/services").await.unwrap();
            if services.to_string().matches("\"fit\"").count() == fit {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it does not come to {fit} that are fit");
    };
    until(2).await;
    let said = peers();
    assert!(said.contains("peer: left") && said.contains("peer: right"), "{said}");
    for (serving, fit) in [("no", 1), ("yes", 2)] {
        tell("serving", &left.address().to_string(), "-", &[serving]);
        until(fit).await;
        assert_eq!(peers().contains("peer: left"), serving == "yes");
    }
    assert!(server.log().contains("it says that it does not serve"), "{}", server.log());
}
