//! Requests and answers that are held to OpenAPI documents.

use super::{Realms, told};
use http::Method;
use integration_tests::Server;
use serde_json::json;

#[tokio::test]
async fn requests_that_break_the_document_are_refused() {
    let realms = Realms::as_it_is();
    let plans = realms.plans();
    let get = async |path: &str| told(&plans, Method::GET, path, None).await;
    assert_eq!(get("/plans/first?steps=3").await.0, 200);
    let (status, refused) = get("/plans/first?steps=0").await;
    assert_eq!(status, 400);
    assert_eq!(refused["operation"], "getPlan");
    assert_eq!(refused["violations"][0]["in"], "query");
    assert_eq!(refused["violations"][0]["name"], "steps");
    assert_eq!(get("/plans/First").await.1["violations"][0]["in"], "path");

    let add = async |body| told(&plans, Method::POST, "/plans/first/steps", body).await;
    let (status, refused) = add(Some(json!({ "title": "", "more": 1 }))).await;
    assert_eq!(status, 400, "{refused}");
    let places: Vec<_> =
        refused["violations"].as_array().unwrap().iter().map(|v| &v["at"]).collect();
    assert!(places.contains(&&json!("/title")), "{refused}");
    assert_eq!(add(None).await.0, 400);
    assert_eq!(add(Some(json!({ "title": "pack" }))).await.0, 201);
    let (_, plan) = get("/plans/first").await;
    assert_eq!(plan["steps"][1]["title"], "pack");
    assert_eq!(plan["steps"].as_array().unwrap().len(), 2, "what was refused did not arrive");
}

#[tokio::test]
async fn an_operation_s_limit_holds_for_it_alone() {
    let realms = Realms::as_it_is();
    let plans = realms.plans();
    let step = || Some(json!({ "title": "go" }));
    for _ in 0..5 {
        assert_eq!(told(&plans, Method::POST, "/plans/first/steps", step()).await.0, 201);
    }
    let (status, refused) = told(&plans, Method::POST, "/plans/first/steps", step()).await;
    assert_eq!((status, &refused["limit"]), (429, &json!("plans.addStep-1")), "{refused}");
    assert_eq!(told(&plans, Method::GET, "/plans/first", None).await.0, 200);
}

#[tokio::test]
async fn what_ends_is_told_to_end() {
    let bridge = "[[bridges]]\nname = \"old\"\nfrom = \"experience\"\nto = \"solution\"\n\
        operations = [\"oldPlan\"]\n";
    let realms = Realms::start(|config| config, bridge);
    let answer = realms.plans().call(Method::GET, "/v1/plan", None).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["deprecation"], "@1767225600");
    assert_eq!(answer.headers["sunset"], "Wed, 30 Jun 2027 00:00:00 GMT");
    let current = realms.plans().call(Method::GET, "/plans/first", None).await.unwrap();
    assert!(current.headers.get("deprecation").is_none());
}

#[tokio::test]
async fn what_is_kept_is_told_to_end_as_well() {
    let door = "[[routes]]\nname = \"door\"\nprefix = \"/door\"\nstrip_prefix = true\n\
        service = \"plans\"\nopenapi = true\ncache = { per = \"caller\" }\n";
    let realms = Realms::start(|config| config, door);
    let ann = realms.node.client("acme", "ann");
    for kept in [false, true] {
        let answer = ann.call(Method::GET, "/door/v1/plan", None).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers.contains_key("age"), kept, "{:?}", answer.headers);
        assert_eq!(answer.headers["deprecation"], "@1767225600");
    }
}

#[tokio::test]
async fn a_document_that_cannot_be_kept_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let stores = format!("durable = \"embedded:{}/data\"", folder.path().display());
    let file = folder.path().join("api.yaml");
    let config = format!(
        "[services.s]\ninstances = [\"http://127.0.0.1:9\"]\n[realms.r.services]\n\
         s = {{ openapi = \"{}\" }}\n",
        file.display()
    );
    let refused = |text: Option<&str>| {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        Server::refused_on(&stores, &config)
    };
    assert!(refused(None).contains("No such file"), "{}", refused(None));
    let circle = "openapi: 3.1.0\ninfo: { title: t, version: '1' }\n\
        components: { schemas: { A: { $ref: '#/components/schemas/A' } } }\n";
    assert!(refused(Some(circle)).contains("refer to themselves"));
    assert!(refused(Some("openapi: [")).contains("no YAML"));
}
