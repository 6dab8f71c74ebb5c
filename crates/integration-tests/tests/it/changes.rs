//! The configuration of a running node as a transaction.

use integration_tests::{Server, Socket, binary};
use serde_json::{Value as Json, json};
use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};
use test_servers::{Process, free_ports};

/// A service that answers with its name, and fails the part of the requests that it is told to.
const SERVICE: &str = r#"
import http.server, itertools, sys, time
name, failing, wait = sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
count = itertools.count()
class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        time.sleep(wait)
        self.send_response(500 if next(count) % 100 < failing else 200)
        self.send_header("content-length", str(len(name)))
        self.end_headers()
        self.wfile.write(name.encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
"#;

struct Bench {
    server: Server,
    folder: tempfile::TempDir,
    head: String,
}

fn service(folder: &tempfile::TempDir, name: &str, failing: u32, wait: f64) -> Process {
    let [port] = free_ports().unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", SERVICE, &port.to_string(), name, &failing.to_string(), &wait.to_string()]);
    Process::start(&mut command, port, &folder.path().join(format!("{port}.log"))).unwrap()
}

fn routes(service: SocketAddr) -> String {
    format!(
        "[services.s]\ninstances = [\"http://{service}\"]\n[[routes]]\nname = \"r\"\n\
         service = \"s\"\nauth = \"none\"\n"
    )
}

impl Bench {
    fn start(service: &Process) -> Self {
        let server = Server::start_alone(&routes(service.address()));
        let text = fs::read_to_string(server.folder().join("crosstown.toml")).unwrap();
        let head = text.split("[services.s]").next().unwrap().to_owned();
        Self { server, folder: tempfile::tempdir().unwrap(), head }
    }

    /// A file with other routes and services.
    fn file(&self, text: &str) -> PathBuf {
        let file = self.folder.path().join("new.toml");
        fs::write(&file, format!("{}{text}", self.head)).unwrap();
        file
    }

    fn run(&self, args: &[&str]) -> Output {
        let config = self.server.folder().join("crosstown.toml");
        let mut command = Command::new(binary());
        command.arg("config").args(args).arg("--config").arg(config);
        command.current_dir(self.server.folder()).output().unwrap()
    }

    fn said(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn json(&self, args: &[&str]) -> Json {
        serde_json::from_str(&self.said(args)).unwrap()
    }

    async fn get(&self) -> (u16, String) {
        let (host, port) = self.server.edge();
        let answer = tokio::task::spawn_blocking(move || {
            let url = format!("http://{host}:{port}/");
            Command::new("curl").args(["-s", "-w", "\n%{http_code}", &url]).output().unwrap()
        });
        let answer = String::from_utf8(answer.await.unwrap().stdout).unwrap();
        let (body, status) = answer.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_planned_applied_and_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (service(&folder, "one", 0, 0.0), service(&folder, "two", 0, 0.0));
    let mut bench = Bench::start(&one);
    let new = bench.file(&routes(two.address()));
    let new = new.to_str().unwrap();
    let plan = bench.json(&["plan", new, "--json"]);
    assert_eq!(plan["changes"][0]["path"], "services.s.instances");
    assert_eq!((&plan["restart"], &plan["lost"]), (&json!([]), &json!([])));
    assert_eq!(bench.get().await.1, "one", "a plan changes nothing");
    let version = plan["version"].as_str().unwrap().to_owned();
    assert!(bench.said(&["plan", new]).contains("~ services.s.instances = "));
    let said = bench.said(&["apply", new, "--if-version", &version]);
    assert!(said.contains("applied") && said.contains(plan["planned"].as_str().unwrap()), "{said}");
    assert_eq!(bench.get().await.1, "two");
    // Whoever planned before that has to look again.
    let stale = bench.refused(&["apply", new, "--if-version", &version]);
    assert!(stale.contains("another configuration is in force"), "{stale}");
    assert!(bench.said(&["apply", new]).contains("unchanged"));
    let versions = bench.json(&["versions", "--json"]);
    assert_eq!(versions.as_array().unwrap().len(), 2);
    assert_eq!(
        (&versions[0]["in_force"], &versions[1]["version"]),
        (&json!(true), &json!(version))
    );
    // What is in force is in the file, so a restart changes nothing.
    bench.server.stop();
    bench.server.start_again();
    assert_eq!(bench.get().await.1, "two");
    bench.said(&["rollback"]);
    assert_eq!(bench.get().await.1, "one");
    bench.said(&["rollback", versions[0]["version"].as_str().unwrap()]);
    assert_eq!(bench.get().await.1, "two");
    assert!(bench.refused(&["rollback", "nonsense"]).contains("no such configuration"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_stay_through_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (service(&folder, "one", 0, 0.0), service(&folder, "two", 0, 0.0));
    let bench = Bench::start(&one);
    let token = bench.server.token("acme", "ann");
    let mut socket = Socket::connect(&bench.server.base(), &token).await;
    let new = bench.file(&routes(two.address()));
    bench.said(&["apply", new.to_str().unwrap()]);
    assert_eq!(bench.get().await.1, "two");
    // It is answered: there is no such namespace.
    let refused = socket.ask("subscribe", json!({ "channel": "news:1" })).await.unwrap_err();
    assert_eq!(refused["code"], 102);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_applied_changes_nothing_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let one = service(&folder, "one", 0, 0.0);
    let bench = Bench::start(&one);
    let before = fs::read_to_string(bench.server.folder().join("crosstown.toml")).unwrap();
    let [nobody] = free_ports().unwrap();
    let lost = routes(SocketAddr::from(([127, 0, 0, 1], nobody)));
    for (text, why) in [
        ("[services.s]\ninstances = [\"nonsense\"]\n", "nonsense"),
        ("[[routes]]\nname = \"r\"\nservice = \"x\"\n", "not configured"),
        ("lissen = 1\n", "unknown field"),
        ("[sessions]\nper_user_max = 3\n", "does not take over sessions"),
        (lost.as_str(), "no instance of s can be reached"),
    ] {
        let file = bench.file(text);
        let said = bench.refused(&["apply", file.to_str().unwrap()]);
        assert!(said.contains(why), "{said}");
        assert_eq!(bench.get().await.1, "one", "{why}");
        let after = fs::read_to_string(bench.server.folder().join("crosstown.toml")).unwrap();
        assert_eq!(after, before, "{why}");
    }
    let file = bench.file(&lost);
    let plan = bench.said(&["plan", file.to_str().unwrap()]);
    assert!(
        plan.contains("not reached: 127.0.0.1") && plan.contains("no instance is reached of: s")
    );
    // Only the operator may, and only who means it.
    bench.said(&["apply", file.to_str().unwrap(), "--force"]);
    assert_eq!(bench.get().await.0, 502);
}

/// Asks until the trial has ended.
async fn busy(bench: &Bench) -> Json {
    for _ in 0..2_000 {
        for _ in 0..8 {
            bench.get().await;
        }
        let status = bench.json(&["status", "--json"]);
        if status["trial"].is_null() {
            return status["last_trial"].clone();
        }
    }
    panic!("the trial does not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_that_goes_wrong_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let one = service(&folder, "one", 0, 0.0);
    let bench = Bench::start(&one);
    let failing = service(&folder, "fails", 50, 0.0);
    let slow = service(&folder, "slow", 0, 0.5);
    for (service, bounds, why) in
        [(&failing, ["--errors-max", "5"], "failed"), (&slow, ["--p99-max", "400"], "99 of 100")]
    {
        let file = bench.file(&routes(service.address()));
        let terms = json!({ "percent": 50, "for": "10m", "requests_min": 10 });
        let mut body = json!({ "text": fs::read_to_string(&file).unwrap(), "trial": terms });
        let key = bounds[0].trim_start_matches("--").replace("-max", "_percent_max");
        let key = key.replace("p99_percent_max", "p99_ms_max");
        body["trial"][key] = bounds[1].parse::<f64>().unwrap().into();
        let applied: Json = bench.server.admin().post("/config/apply", &body).await.unwrap();
        assert_eq!(applied["status"], "trying");
        // One at a time.
        assert!(bench.refused(&["apply", file.to_str().unwrap()]).contains("on trial"));
        let last = busy(&bench).await;
        assert_eq!(
            (&last["outcome"], &last["version"]),
            (&json!("taken back"), &applied["version"])
        );
        assert!(last["why"].as_str().unwrap().contains(why), "{last}");
        for _ in 0..20 {
            assert_eq!(bench.get().await, (200, "one".to_owned()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_that_goes_well_is_kept_and_one_without_requests_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (service(&folder, "one", 0, 0.0), service(&folder, "two", 0, 0.0));
    let bench = Bench::start(&one);
    let file = bench.file(&routes(two.address()));
    let file = file.to_str().unwrap();
    // What the platform answers itself says nothing of it.
    let base = bench.server.base();
    let others = std::thread::spawn(move || {
        for _ in 0..40 {
            let url = format!("{base}/crosstown/v1/whoami");
            Command::new("curl").args(["-s", "-o", "/dev/null", &url]).status().unwrap();
        }
    });
    let terms = ["--canary", "50", "--for", "1s", "--requests-min", "1"];
    let output = bench.run(&[&["apply", file][..], &terms].concat());
    assert!(!output.status.success());
    others.join().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("taken back: it had 0 requests"), "{told}");
    let terms = json!({ "percent": 20, "for": "3s", "requests_min": 5 });
    let body = json!({ "text": fs::read_to_string(file).unwrap(), "trial": terms });
    let _: Json = bench.server.admin().post("/config/apply", &body).await.unwrap();
    let (mut tried, mut asked) = (0, 0);
    while bench.json(&["status", "--json"])["trial"].is_object() {
        for _ in 0..10 {
            let (status, name) = bench.get().await;
            assert_eq!(status, 200);
            asked += 1;
            tried += usize::from(name == "two");
        }
    }
    let last = bench.json(&["status", "--json"])["last_trial"].clone();
    assert_eq!(last["outcome"], "kept", "{last}");
    assert!(tried > 0 && tried < asked, "{tried} of {asked}");
    for _ in 0..20 {
        assert_eq!(bench.get().await.1, "two");
    }
    // What is on trial can be ended by the operator, and by another change.
    let back = bench.file(&routes(one.address()));
    let body = json!({
        "text": fs::read_to_string(&back).unwrap(),
        "trial": { "percent": 10, "for": "10m" },
    });
    let _: Json = bench.server.admin().post("/config/apply", &body).await.unwrap();
    assert!(bench.said(&["status"]).contains("on trial: "));
    bench.said(&["abandon"]);
    let _: Json = bench.server.admin().post("/config/apply", &body).await.unwrap();
    let _: Json = bench.server.admin().post("/reload", &json!({})).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = bench.json(&["status", "--json"]);
    assert!(status["trial"].is_null(), "{status}");
    assert!(status["last_trial"]["why"].as_str().unwrap().contains("another configuration"));
    assert_eq!(bench.get().await.1, "two");
}
