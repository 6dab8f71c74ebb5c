//! Every command of the guides, as they stand: each guide in a network and a process namespace
//! of its own, so that its ports are free and its signals reach its own processes.

use integration_tests::{binary, repository};
use std::{fs, os::unix::fs::PermissionsExt, process::Command};

/// The blocks of a page in one language.
fn blocks(page: &str, language: &str) -> String {
    let text = fs::read_to_string(repository().join(page)).unwrap();
    let (mut found, mut inside) = (String::new(), false);
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(fence) => inside = fence == language,
            None if inside => found.push_str(&format!("{line}\n")),
            None => {}
        }
    }
    assert!(!found.is_empty(), "{page} has no `{language}`");
    found
}

fn run(page: &str) {
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(binary(), bin.join("crosstown")).unwrap();
    // There is no registry in the namespace: the packages are those of the client tests.
    let packages = binary().ancestors().nth(2).unwrap().join("clients/node_modules");
    std::os::unix::fs::symlink(packages, folder.path().join("node_modules")).unwrap();
    fs::write(bin.join("npm"), "#!/bin/sh\n").unwrap();
    fs::write(bin.join("pip"), "#!/bin/sh\n").unwrap();
    let python = binary().ancestors().nth(2).unwrap().join("python/bin/python");
    let python = format!("#!/bin/sh\nexec {} \"$@\"\n", python.display());
    fs::write(bin.join("python3"), python).unwrap();
    for stub in ["npm", "pip", "python3"] {
        fs::set_permissions(bin.join(stub), fs::Permissions::from_mode(0o755)).unwrap();
    }

    let script = format!("set -euo pipefail\nip link set lo up\n{}", blocks(page, "sh"));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = Command::new("timeout")
        .args(["120", "unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["bash", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let log = fs::read_to_string(folder.path().join("crosstown.log")).unwrap_or_default();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{page}: {said}\n{error}\n{log}");
}

#[test]
fn services() {
    run("docs/guides/services.md");
}

#[test]
fn openapi() {
    run("docs/guides/openapi.md");
}

#[test]
fn balancing() {
    run("docs/guides/balancing.md");
}

#[test]
fn registration() {
    run("docs/guides/registration.md");
}

#[test]
fn realms() {
    run("docs/guides/realms.md");
}

#[test]
fn resilience() {
    run("docs/guides/resilience.md");
}

#[test]
fn routes() {
    run("docs/guides/routes.md");
}

#[test]
fn answers() {
    run("docs/guides/answers.md");
}

#[test]
fn configuration() {
    run("docs/guides/configuration.md");
}

#[test]
fn sessions_and_state() {
    run("docs/guides/sessions-and-state.md");
}

#[test]
fn mailboxes() {
    run("docs/guides/mailboxes.md");
}

#[test]
fn sockets() {
    run("docs/guides/sockets.md");
}

#[test]
fn limits_and_traffic() {
    run("docs/guides/limits-and-traffic.md");
}

#[test]
fn analytics() {
    run("docs/guides/analytics.md");
}

#[test]
fn several_nodes() {
    run("docs/guides/several-nodes.md");
}

#[test]
fn every_configuration_that_is_shown_is_accepted() {
    for page in [
        "README.md",
        "docs/guides/sockets.md",
        "docs/guides/several-nodes.md",
        "docs/guides/state-tiers.md",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("crosstown.toml");
        fs::write(&file, blocks(page, "toml")).unwrap();
        let output =
            Command::new(binary()).arg("check").arg("--config").arg(&file).output().unwrap();
        assert!(output.status.success(), "{page}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_guide_is_run() {
    let guides = fs::read_dir(repository().join("docs/guides")).unwrap();
    let this = fs::read_to_string(repository().join("crates/integration-tests/tests/it/guides.rs"));
    let this = this.unwrap();
    for guide in guides {
        let name = guide.unwrap().file_name().into_string().unwrap();
        assert!(this.contains(&format!("run(\"docs/guides/{name}\")")), "{name} is not run");
    }
}

#[test]
fn state_rules() {
    run("docs/guides/state-rules.md");
}

#[test]
fn state_tiers() {
    run("docs/guides/state-tiers.md");
}

#[test]
fn grpc() {
    run("docs/guides/grpc.md");
}

#[test]
fn tls() {
    run("docs/guides/tls.md");
}
