use integration_tests::{Server, binary, repository};
use std::{
    fs,
    process::{Command, Output},
};
use test_servers::{Appends, Postgres, PostgresOptions, Redis, RedisOptions};

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
    assert!(told.contains("9 steps, all as promised"), "{told}");
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
    assert!(told.contains("9 steps, all as promised"), "{told}");
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
