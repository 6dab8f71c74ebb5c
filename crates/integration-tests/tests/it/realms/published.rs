//! Documents that come while the node runs, and what an audience is shown of them all.

use super::{Realms, told};
use client::Client;
use http::Method;
use integration_tests::{binary, repository};
use serde_json::{Value as Json, json};
use std::{fs, process::Command, time::Duration};
use test_servers::{Process, free_ports};

const PLANS: &str = "/crosstown/v1/realms/solution/services/plans/openapi";

fn from(source: &str) -> impl FnOnce(String) -> String {
    move |config| {
        let begin = config.find("openapi = ").unwrap();
        let end = begin + config[begin..].find('\n').unwrap();
        format!("{}openapi = {source}{}", &config[..begin], &config[end..])
    }
}

fn document() -> String {
    fs::read_to_string(repository().join("examples/realms/plans.yaml")).unwrap()
}

async fn publish(by: &Client, path: &str, text: &str) -> (u16, Json) {
    let answer = by.call(Method::PUT, path, Some(text.as_bytes().to_vec())).await.unwrap();
    (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap())
}

async fn get(realms: &Realms) -> u16 {
    told(&realms.plans(), Method::GET, "/plans/first?steps=1", None).await.0
}

#[tokio::test]
async fn a_realm_publishes_the_document_of_its_service() {
    let mut realms = Realms::start(from("{ registered = true }"), "");
    let (status, refused) = told(&realms.plans(), Method::GET, "/plans/first", None).await;
    assert_eq!((status, &refused["code"]), (503, &json!("no_instance")), "it has yet to come");

    let own = realms.speaker("solution");
    assert_eq!(publish(&realms.speaker("experience"), PLANS, &document()).await.0, 403);
    assert_eq!(publish(&realms.node.client("acme", "ann"), PLANS, &document()).await.0, 403);
    let other = PLANS.replace("plans", "none");
    assert_eq!(publish(&own, &other, &document()).await.0, 404);
    for broken in ["", "openapi: 3.1.0", "{", &document().replace("id:", "id: [")] {
        assert_eq!(publish(&own, PLANS, broken).await.0, 400, "{broken}");
    }
    let clash = document().replace("oldPlan", "getPlan");
    let (status, refused) = publish(&own, PLANS, &clash).await;
    assert_eq!(status, 400);
    assert!(refused["detail"].as_str().unwrap().contains("another operation"), "{refused}");
    assert_eq!(publish(&own, PLANS, &" ".repeat(900_000)).await.0, 413);

    let (status, taken) = publish(&own, PLANS, &document()).await;
    assert_eq!((status, &taken["operations"]), (200, &json!(4)), "{taken}");
    assert_eq!(get(&realms).await, 200, "it holds at once");
    assert_eq!(told(&realms.plans(), Method::GET, "/plans/X", None).await.0, 400);

    realms.node.kill();
    realms.node.start_again();
    assert_eq!(get(&realms).await, 200, "it is kept");

    // Another one takes its place; what breaks it is refused from then on.
    let fewer = document().replace("maximum: 100", "maximum: 100, multipleOf: 2");
    let own = realms.speaker("solution");
    assert_eq!(publish(&own, PLANS, &fewer).await.0, 200);
    assert_eq!(get(&realms).await, 400);
    own.delete(PLANS).await.unwrap();
    assert_eq!(get(&realms).await, 503);
    assert_eq!(own.delete(PLANS).await.unwrap_err().code(), Some("not_found"));
}

#[tokio::test]
async fn a_document_is_fetched_from_where_an_operator_allows() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("plans.yaml"), document()).unwrap();
    let [port] = free_ports().unwrap();
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", &port.to_string(), "--bind", "127.0.0.1"]);
    let log = folder.path().join("log");
    let _files = Process::start(command.current_dir(folder.path()), port, &log).unwrap();
    let url = format!("http://127.0.0.1:{port}/plans.yaml");

    let refused = Realms::start(from(&format!("{{ url = \"{url}\" }}")), "");
    assert_eq!(get(&refused).await, 503, "it has not come");
    assert!(!fs::read_to_string(&log).unwrap().contains("GET"), "nobody asked for it");
    assert!(refused.node.log().contains("it is on this machine"), "{}", refused.node.log());

    let source = format!("{{ url = \"{url}\", loopback = true, every = \"10s\" }}");
    let realms = Realms::start(from(&source), "");
    assert_eq!(get(&realms).await, 200);
    let fewer = document().replace("maximum: 100", "maximum: 100, multipleOf: 2");
    fs::write(folder.path().join("plans.yaml"), fewer).unwrap();
    let mut status = 200;
    for _ in 0..240 {
        status = get(&realms).await;
        if status != 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(status, 400, "what it says now holds");
}

#[tokio::test]
async fn a_document_that_was_not_there_at_first_comes_soon() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("plans.yaml"), document()).unwrap();
    let [port] = free_ports().unwrap();
    let url = format!("http://127.0.0.1:{port}/plans.yaml");
    let realms = Realms::start(from(&format!("{{ url = \"{url}\", loopback = true }}")), "");
    assert_eq!(get(&realms).await, 503);
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", &port.to_string(), "--bind", "127.0.0.1"]);
    let log = folder.path().join("log");
    let _files = Process::start(command.current_dir(folder.path()), port, &log).unwrap();
    for _ in 0..240 {
        if get(&realms).await == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("it is looked for again in five minutes only");
}

#[tokio::test]
async fn an_audience_sees_what_it_can_call() {
    let realms = Realms::as_it_is();
    let experience = realms.speaker("experience");
    let listed: Json = experience.get("/crosstown/v1/realms").await.unwrap();
    assert_eq!(listed["realm"], "experience");
    let ids = |service: &Json| -> Vec<String> {
        let operations = service["operations"].as_array().unwrap().iter();
        operations.map(|operation| operation["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&listed["realms"]["solution"][0]), ["getPlan", "addStep"]);
    let plans = &listed["realms"]["solution"][0];
    assert_eq!((&plans["instances_fit"], &plans["instances"]), (&json!(1), &json!(1)));
    assert_eq!(ids(&listed["realms"]["experience"][0]).len(), 2);
    for (query, found) in [
        ("?service=plans&version=2", true),
        ("?service=plans&version=1", false),
        ("?realm=solution&tag=none", false),
    ] {
        let listed: Json = experience.get(&format!("/crosstown/v1/realms{query}")).await.unwrap();
        assert_eq!(listed["realms"].get("solution").is_some(), found, "{query}");
    }
    let ann = realms.node.client("acme", "ann");
    let nothing: Json = ann.get("/crosstown/v1/realms").await.unwrap();
    assert_eq!(nothing, json!({ "realm": null, "realms": {} }));

    let document: Json = experience.get("/crosstown/v1/realms/openapi").await.unwrap();
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    let calls = "/crosstown/v1/call";
    assert_eq!(
        paths,
        [
            &format!("{calls}/experience/journeys/journeys/{{id}}"),
            &format!("{calls}/solution/plans/plans/{{id}}"),
            &format!("{calls}/solution/plans/plans/{{id}}/steps"),
        ]
    );
    assert!(document["paths"][paths[1]].get("delete").is_none());
    // It is a document, by the word of a library that we did not write.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("openapi.json");
    fs::write(&file, document.to_string()).unwrap();
    let python = binary().ancestors().nth(2).unwrap().join("python/bin/python");
    let script = "import json, sys; from openapi_spec_validator import validate; \
        validate(json.load(open(sys.argv[1])))";
    let judged = Command::new(python).args(["-c", script]).arg(&file).output().unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));

    let from_outside: Json = ann.get("/crosstown/v1/realms/openapi").await.unwrap();
    let paths: Vec<&String> = from_outside["paths"].as_object().unwrap().keys().collect();
    assert_eq!(paths, ["/experience/journeys/{id}"]);
    let other = ann.get::<Json>("/crosstown/v1/realms/openapi?audience=solution").await;
    assert_eq!(other.unwrap_err().code(), Some("forbidden"));
}

#[tokio::test]
async fn the_document_can_be_browsed() {
    let realms = Realms::as_it_is();
    let crosstown = |args: &[&str]| {
        let output = Command::new(binary())
            .args(args)
            .arg("--config")
            .arg(realms.node.folder().join("crosstown.toml"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let page = crosstown(&["realms", "openapi", "--audience", "experience", "--html"]);
    let file = realms.node.folder().join("page.html");
    fs::write(&file, page).unwrap();
    let browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
        .arg(format!("--user-data-dir={}", realms.node.folder().join("browser").display()))
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    let seen = String::from_utf8_lossy(&browser.stdout);
    for shown in ["<h2>solution/plans</h2>", "A plan with its steps", "<b>POST</b>", "maxLength"] {
        assert!(seen.contains(shown), "{shown}: {seen}");
    }
    assert!(!seen.contains("Forget a plan"), "what may not be called is not shown");
    let listed = crosstown(&["realms", "list"]);
    assert!(listed.contains("plans") && listed.contains("2.1.0"), "{listed}");
}

#[tokio::test]
async fn answers_that_break_the_document_pass_and_are_told() {
    let wrong = |config: String| {
        // The service tells steps that this document does not know.
        let folder = std::env::temp_dir().join(format!("crosstown-plans-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("plans.yaml");
        fs::write(&file, document().replace("maxLength: 80", "maxLength: 3")).unwrap();
        from(&format!("\"{}\"", file.display()))(config)
    };
    let realms = Realms::start(wrong, "");
    assert_eq!(get(&realms).await, 200, "it passes");
    let mut broken = Json::Null;
    for _ in 0..100 {
        let told: Json = realms.node.admin().get("/realms").await.unwrap();
        broken = told["broken"].clone();
        if broken[0]["count"] == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(broken[0]["operation"], "getPlan", "{broken}");
    assert_eq!(broken[0]["by"], "response");
    assert!(broken[0]["last"].as_str().unwrap().contains("/steps/0/title"), "{broken}");
    let labels = "service=\"plans\",operation=\"getPlan\",by=\"response\"";
    let name = format!("crosstown_document_violations_total{{{labels}}}");
    assert_eq!(realms.node.metric(&name).await, 1);
}
