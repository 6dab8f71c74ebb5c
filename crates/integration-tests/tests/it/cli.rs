use integration_tests::{Server, Socket, binary, repository};
use serde_json::{Value as Json, json};
use std::{
    fs,
    process::{Command, Output, Stdio},
    time::Duration,
};
use test_servers::{Appends, Postgres, PostgresOptions, Redis, RedisOptions};
use tokio::io::{AsyncBufReadExt, BufReader};

fn run(args: &[&str]) -> Output {
    Command::new(binary()).args(args).output().expect("the binary runs")
}

fn complaint(output: &Output) -> String {
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(text.trim_end().lines().count(), 1, "one line: {text}");
    text
}

#[test]
fn the_demo_tells_its_story() {
    let output = run(&["demo", "--once"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("10 steps, all as promised"), "{told}");
}

/// Two nodes behind it, with nothing changed but the file.
#[test]
fn the_demo_tells_its_story_on_redis_and_postgres() {
    let redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let postgres = Postgres::start(PostgresOptions::default()).unwrap();
    let example = fs::read_to_string(repository().join("examples/redis-postgres.toml")).unwrap();
    let mut config: toml::Table = example.parse().unwrap();
    let stores = config["stores"].as_table_mut().unwrap();
    for (tier, url) in [("hot", redis.url()), ("durable", postgres.url(""))] {
        let named = stores.insert(tier.into(), url.clone().into()).unwrap();
        let scheme = |url: &str| url.split_once("://").unwrap().0.to_owned();
        assert_eq!(scheme(named.as_str().unwrap()), scheme(&url));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("redis-postgres.toml");
    fs::write(&file, config.to_string()).unwrap();
    let output = run(&["demo", "--once", "--config", file.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("Two servers run on") && told.contains("one by each server"), "{told}");
    assert!(told.contains("10 steps, all as promised"), "{told}");
    let whole = file.with_file_name("whole.toml");
    for (text, why) in [
        ("[stores]\nhot = \"memory:\"", "must be Redis or PostgreSQL"),
        ("[stores]\nhot = \"redis://h\"\n[realtime]\n", "takes `[stores]` only"),
    ] {
        fs::write(&whole, text).unwrap();
        let said = complaint(&run(&["demo", "--once", "--config", whole.to_str().unwrap()]));
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn a_wrong_configuration_is_told_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    let name = file.to_str().unwrap();
    let refused = |text: &str, command: &str, expected: &str| {
        fs::write(&file, text).unwrap();
        let said = complaint(&run(&[command, "--config", name]));
        assert!(said.contains(expected), "{said}");
    };
    refused("[edge]\n\nlissen = 1\n", "check", "c.toml:3: unknown field `lissen`");
    refused("[edge]\nlisten = \"0.0.0.0:1\"\n", "check", "insecure");
    refused("[stores]\nhot = \"x\"\n", "serve", "`embedded:DIR`");
    refused("nonsense", "serve", "c.toml:1:");
    let issuer = "[[identity.issuers]]\nname = \"i\"\nissuer = \"i\"\naudience = [\"a\"]\n";
    refused(
        &format!("{issuer}algorithms = [\"none\"]\nsecret = \"x\"\n"),
        "check",
        "`none` is not supported",
    );
    refused(&format!("{issuer}algorithms = [\"HS256\"]\nsecret = \"x\"\n"), "check", "32 bytes");
    refused(&format!("{issuer}algorithms = [\"HS256\"]\n"), "check", "exactly one of");
    let missing = complaint(&run(&["check", "--config", "/nowhere.toml"]));
    assert!(missing.contains("cannot read /nowhere.toml"));
}

#[test]
fn check_prints_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    let secret = "canary-canary-canary-canary-canary-1";
    let text = format!(
        "[[identity.issuers]]\nname = \"i\"\nissuer = \"i\"\naudience = [\"a\"]\n\
         algorithms = [\"HS256\"]\nsecret = \"{secret}\"\n"
    );
    fs::write(&file, text).unwrap();
    let output = run(&["check", "--config", file.to_str().unwrap()]);
    assert!(output.status.success());
    assert!(!String::from_utf8_lossy(&output.stdout).contains(secret));
    let token = ["token", "--config", file.to_str().unwrap(), "--tenant", "t", "--user", "u"];
    let output = run(&token);
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches('.').count(), 2);
}

#[test]
fn a_folder_or_port_in_use_is_told_with_advice() {
    let server = Server::start("");
    let config = fs::read_to_string(server.folder().join("crosstown.toml")).unwrap();
    let again = server.folder().join("again.toml");
    let serve = || complaint(&run(&["serve", "--config", again.to_str().unwrap()]));
    fs::write(&again, &config).unwrap();
    assert!(serve().contains("is in use: stop the other crosstown"));
    let elsewhere = config.replacen("/data\"", "/other\"", 1);
    fs::write(&again, &elsewhere).unwrap();
    let said = serve();
    assert!(said.contains("cannot listen") && said.contains("port"), "{said}");
}

#[tokio::test]
async fn a_trace_is_printed_until_it_ends() {
    let server = Server::start("");
    let key = server.api_key("acme", "crm").await;
    let mut ann = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    let trace = |args: &[&str]| {
        let mut command = tokio::process::Command::new(binary());
        command.args(["trace", "--node", &server.base()]).args(args);
        command.env("CROSSTOWN_API_KEY", &key).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    };
    let mut child = trace(&["--user", "ann", "--for", "2s", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // It takes its time to begin; what is seen, is seen from then on.
    let first = loop {
        ann.ask("ping", json!({})).await.unwrap();
        tokio::select! {
            line = lines.next_line() => break line.unwrap().expect("a frame"),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    };
    let frame: Json = serde_json::from_str(&first).unwrap();
    assert_eq!((&frame["user"], &frame["kind"]), (&json!("ann"), &json!("command")), "{first}");
    while lines.next_line().await.unwrap().is_some() {}
    assert!(child.wait().await.unwrap().success());

    // Who leaves it ends it.
    let mut child = trace(&["--channel", "room"]).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(told.next_line().await.unwrap().unwrap().contains("Ctrl-C"));
    let service = client::Client::new(&server.base(), &key).unwrap();
    let traces = async || service.get::<Json>("/crosstown/v1/traces").await.unwrap();
    assert_eq!(traces().await["traces"][0]["of"], json!({ "channel": "room" }));
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert!(child.wait().await.unwrap().success());
    assert_eq!(traces().await["traces"], json!([]));
    let refused = trace(&[]).output().await.unwrap();
    assert!(complaint(&refused).contains("say what to trace"));
    let refused = trace(&["--user", "ann"]).env_remove("CROSSTOWN_API_KEY").output().await.unwrap();
    assert!(complaint(&refused).contains("CROSSTOWN_API_KEY"));
}

#[test]
fn limits_are_simulated_and_a_wrong_line_is_told_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let (config, other) = (folder.path().join("c.toml"), folder.path().join("other.toml"));
    let traffic = folder.path().join("traffic.jsonl");
    let limit = |requests: u64| {
        format!(
            "[[limits]]\nname = \"a\"\nper = \"user\"\nrequests = {requests}\nperiod = \"1m\"\n\
             [[limits]]\nname = \"b\"\nper = \"ip\"\nquota = 4\nperiod = \"day\"\nmode = \"shadow\"\n"
        )
    };
    fs::write(&config, limit(2)).unwrap();
    fs::write(&other, limit(1)).unwrap();
    let line = |time: &str, user: &str, more: &str| {
        format!(
            "{{\"time\":\"{time}\",\"route\":\"_api\",\"ip\":\"10.0.0.1\",\"tenant\":\"acme\",\
             \"principal\":\"{user}\"{more}}}\n"
        )
    };
    let lines: String = [("10:00:00", "ann"), ("10:00:01", "ann"), ("10:00:02", "ann")]
        .into_iter()
        .chain([("10:05:00", "ann"), ("10:05:01", "bob"), ("23:59:59", "bob")])
        .map(|(time, user)| line(&format!("2026-12-01T{time}Z"), user, ""))
        .collect();
    let simulate = |lines: &str, more: &[&str]| {
        fs::write(&traffic, lines).unwrap();
        let files = [traffic.to_str().unwrap(), "--config", config.to_str().unwrap()];
        run(&[&["limits", "simulate"], &files[..], more].concat())
    };
    let output = simulate(&lines, &["--json", "--against", other.to_str().unwrap()]);
    let told: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["report"]["admitted"], &told["report"]["refused"]), (&json!(5), &json!(1)));
    let [a, b] = [0, 1].map(|at| &told["report"]["limits"][at]);
    assert_eq!((&a["refused"], &b["refused"]), (&json!(1), &json!(1)), "{told}");
    assert_eq!(a["subjects"][0]["subject"]["principal"], "ann");
    assert_eq!(a["worst"]["minute"], "2026-12-01T10:00:00Z");
    assert_eq!(told["difference"]["newly_refused"], 1);
    let output = simulate(&lines, &[]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("5 let in, 1 refused") && told.contains("principal ann"), "{told}");

    let refused = |more: &str, expected: &str| {
        let said = complaint(&simulate(&format!("{lines}{more}"), &[]));
        assert!(said.contains("traffic.jsonl:7: ") && said.contains(expected), "{said}");
    };
    refused("nonsense\n", "expected ident");
    refused("\n", "EOF");
    refused(&line("2026-12-02T00:00:00Z", "ann", ",\"cost\":1"), "unknown field `cost`");
    refused(&line("2026-12-01T23:59:58Z", "ann", ""), "sort them by time");
    refused(&"x".repeat(70_000), "65536 bytes at most");
    let missing = complaint(&run(&["limits", "simulate", "no/such/file"]));
    assert!(missing.contains("cannot read no/such/file"), "{missing}");
}
