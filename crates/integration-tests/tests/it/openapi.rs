//! Our own API is what its OpenAPI documents say: those that are kept with the source are those of
//! the router, a node serves them, and schemathesis, which we did not write, finds every operation
//! to be as they say.

use crate::registration;
use client::{Client, Error};
use integration_tests::{Server, Stream, binary, repository};
use serde_json::Value as Json;
use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

const APIS: [(&str, &[&str]); 2] = [("crosstown", &[]), ("admin", &["--admin"])];

fn kept(api: &str) -> PathBuf {
    repository().join(format!("openapi/{api}.json"))
}

fn read(file: &Path) -> Json {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// A tool of the clients' Python packages.
fn tool(name: &str) -> Command {
    let tool = binary().ancestors().nth(2).unwrap().join("python/bin").join(name);
    assert!(tool.exists(), "{name} is missing; install it with `cargo xtask install`");
    Command::new(tool)
}

#[test]
fn the_documents_that_are_kept_are_those_of_the_router() {
    for (api, args) in APIS {
        let told = Command::new(binary()).arg("openapi").args(args).output().unwrap();
        assert!(told.status.success());
        let told: Json = serde_json::from_slice(&told.stdout).unwrap();
        let make = format!("crosstown openapi {} > openapi/{api}.json", args.join(" "));
        assert!(told == read(&kept(api)), "the API is another now; write it down: `{make}`");
    }
}

#[test]
fn the_documents_are_valid_and_say_what_everything_is() {
    for (api, _) in APIS {
        let valid = tool("openapi-spec-validator").arg(kept(api)).output().unwrap();
        assert!(valid.status.success(), "{}", String::from_utf8_lossy(&valid.stdout));
        let document = read(&kept(api));
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for (name, schema) in schemas {
            let is_copy = name.ends_with(|last: char| last.is_ascii_digit());
            assert!(!is_copy, "{name}: two types have this name");
            let members = schema.as_object().unwrap().keys();
            let says = members.filter(|member| *member != "description").count();
            assert!(says > 0, "{name} may be anything");
        }
        let paths = document["paths"].as_object().unwrap();
        for (path, item) in paths {
            for (method, operation) in item.as_object().unwrap() {
                let responses = operation["responses"].as_object().unwrap();
                let good: Vec<_> = responses.iter().filter(|(s, _)| s.starts_with('2')).collect();
                assert!(!good.is_empty(), "{method} {path}");
                for (status, response) in good {
                    let content = response["content"].as_object();
                    let says = content.is_some_and(|content| {
                        content.values().all(|form| form["schema"].as_object().is_some())
                    });
                    assert!(says != (status == "204"), "{method} {path}: {status}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_node_serves_its_documents() {
    let node = Server::start("");
    let anybody = Stream::ask(&node.base(), "GET /crosstown/v1/openapi.json", &[], b"").await;
    assert_eq!(anybody.status, 200, "{}", anybody.head);
    let user = node.client("acme", "ann");
    let public: Json = user.get("/crosstown/v1/openapi.json").await.unwrap();
    assert!(public == read(&kept("crosstown")));
    let admin: Json = node.admin().get("/openapi.json").await.unwrap();
    assert!(admin == read(&kept("admin")));
    let anybody = Client::new(&node.admin_base(), "").unwrap();
    let refused = anybody.get::<Json>("/openapi.json").await;
    assert!(matches!(refused, Err(Error::Refused { status: 401, .. })));
}

/// A node of which every operation has something to work on.
fn config(instance: u16) -> String {
    format!(
        "[services.shop]\ninstances = [\"http://127.0.0.1:{instance}\"]\n\
         registration = {{ tenants = [\"acme\"], roles = [\"registrar\"], loopback = true }}\n\
         [[routes]]\nname = \"shop\"\nservice = \"shop\"\nauth = \"none\"\n\
         [services.plans]\ninstances = [\"http://127.0.0.1:{instance}\"]\n\
         [realms.solution]\nroles = [\"realm-solution\"]\n\
         [realms.solution.services.plans]\nversion = \"1.0.0\"\nopenapi = {{ registered = true }}\n\
         [[limits]]\nname = \"everybody\"\nper = \"tenant\"\nrequests = 100000000\n\
         period = \"1s\"\nmode = \"shadow\"\n\
         [[realtime.namespaces]]\nname = \"board\"\nmap = true\n\
         [mailboxes]\nrefusals_max = 1\n"
    )
}

/// Asks each operation for as many examples as are wanted, 20 unless that is said, and counts.
async fn hold_to(api: &str) {
    let (port, _) = registration::instance((Ipv4Addr::LOCALHOST, 0), "shop").await;
    let node = Server::start(&config(port));
    let body = serde_json::json!({
        "tenant": "acme", "principal": "checker", "roles": ["registrar", "realm-solution"],
    });
    let key: Json = node.admin().post("/api-keys", &body).await.unwrap();
    let key = key["text"].as_str().unwrap();
    let admin_key = fs::read_to_string(node.folder().join("data.admin-key")).unwrap();
    let (base, credential) = match api {
        "admin" => (node.admin_base(), admin_key.trim()),
        _ => (node.base(), key),
    };
    let examples = std::env::var("CROSSTOWN_OPENAPI_EXAMPLES").unwrap_or_else(|_| "20".into());
    let answers = node.folder().join("answers.json");
    let mut run = tool("st");
    run.arg("run")
        .arg(kept(api))
        .args(["--url", &base, "--header", &format!("Authorization: Bearer {credential}")])
        .args(["--phases", "coverage,fuzzing", "--max-examples", &examples, "--seed", "1"])
        // What is right in form may still be refused for what it says.
        .args(["--exclude-checks", "positive_data_acceptance", "--continue-on-failure"])
        .args(["--no-color", "--no-shrink", "--output-sanitize", "false"])
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", repository().join("crates/integration-tests/openapi"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("API", api)
        .env("EXAMPLES", &examples)
        .env("NODE", node.base())
        .env("ADMIN", node.admin_base())
        .env("KEY", key)
        .env("ADMIN_KEY", admin_key.trim())
        .env("INSTANCE", format!("127.0.0.1:{port}"))
        .env("CONFIG", node.folder().join("crosstown.toml"))
        .env("ANSWERS", &answers)
        .current_dir(node.folder());
    let told = tokio::task::spawn_blocking(move || run.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.status.success(), "{said}\n{}", String::from_utf8_lossy(&told.stderr));

    let told = read(&answers);
    assert_eq!(told["faults"], serde_json::json!([]));
    let answers: BTreeMap<String, BTreeMap<u16, u64>> =
        serde_json::from_value(told["answers"].clone()).unwrap();
    let document = read(&kept(api));
    let items = document["paths"].as_object().unwrap().values();
    let operations: Vec<&str> = items
        .flat_map(|item| item.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    let least = examples.parse().unwrap();
    for id in &operations {
        let of = answers.get(*id).unwrap_or_else(|| panic!("{id} was not asked"));
        assert!(of.values().sum::<u64>() >= least, "{id}: {of:?}");
        assert!(of.keys().any(|status| (200..300).contains(status)), "{id}: {of:?}");
    }
    let all: u64 = answers.values().flat_map(BTreeMap::values).sum();
    println!("{} operations of {api}: {all} examples", operations.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_of_the_public_api_is_as_its_document_says() {
    hold_to("crosstown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_of_the_admin_api_is_as_its_document_says() {
    hold_to("admin").await;
}
