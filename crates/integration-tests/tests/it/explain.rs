//! What would become of a request, and what became of one.

use crate::{
    affinity::Instances,
    sessions::{Made, made, until},
};
use integration_tests::{Server, binary};
use serde_json::{Value as Json, json};
use std::{collections::BTreeSet, process::Command};
use test_servers::{Process, free_ports};

fn service(folder: &tempfile::TempDir) -> Process {
    let [port] = free_ports().unwrap();
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", &port.to_string(), "--bind", "127.0.0.1"]);
    command.current_dir(folder.path());
    Process::start(&mut command, port, &folder.path().join("log")).unwrap()
}

fn config(service: &Process) -> String {
    let [nobody] = free_ports().unwrap();
    let address = service.address();
    format!(
        "[services.shop]\ninstances = [\"http://{address}\", \"http://127.0.0.1:{nobody}\"]\n\
         health = {{ interval = \"50ms\", unfit_after = 1 }}\n\
         [services.next]\ninstances = [\"http://{address}\"]\n\
         [[routes]]\nname = \"open\"\nservice = \"shop\"\nauth = \"none\"\nprefix = \"/open\"\n\
         [[routes]]\nname = \"orders\"\nservice = \"shop\"\npath = \"/orders/{{id}}\"\n\
         methods = [\"GET\"]\nrewrite = \"/v2/{{id}}\"\nroles = [\"buyer\"]\n\
         [[routes]]\nname = \"beta\"\nservice = \"shop\"\npath = \"/orders/{{id}}\"\n\
         headers = {{ x-stage = \"beta\" }}\nmethods = [\"GET\"]\n\
         [[routes]]\nname = \"split\"\nauth = \"none\"\nprefix = \"/split\"\n\
         split = [{{ service = \"shop\", weight = 0 }}, {{ service = \"next\", weight = 1 }}]\n\
         [[limits]]\nname = \"few\"\nper = \"user\"\nrequests = 5\nperiod = \"1h\"\n\
         scope = \"node\"\nroutes = [\"orders\"]\n",
    )
}

async fn explained(server: &Server, asked: Json) -> Json {
    server.admin().post("/explain", &asked).await.unwrap()
}

#[tokio::test]
async fn it_tells_the_route_the_caller_the_limits_and_the_instance() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder);
    let server = Server::start(&config(&service));
    let ann = json!({ "tenant": "acme", "principal": "ann", "roles": ["buyer"] });
    let url = "http://shop.example/orders/7?x=1";
    let told = explained(&server, json!({ "url": url, "as": ann })).await;
    assert_eq!(told["outcome"], "forwarded", "{told}");
    assert_eq!((&told["route"], &told["target"]), (&json!("orders"), &json!("/v2/7?x=1")));
    let considered = told["considered"].as_array().unwrap();
    assert_eq!(considered[0]["route"], "beta");
    assert!(considered[0]["why"].as_str().unwrap().contains("x-stage: beta"), "{told}");
    assert_eq!(
        (&considered[1]["route"], &considered[1]["taken"]),
        (&json!("orders"), &json!(true))
    );
    assert_eq!(told["caller"]["principal"], "ann");
    assert_eq!(
        (&told["limits"][0]["limit"], &told["limits"][0]["remaining"]),
        (&json!("few"), &json!(5))
    );
    // Asking costs nothing, and the unfit instance is not taken.
    let address = service.address().to_string();
    for _ in 0..100 {
        let told = explained(&server, json!({ "url": url, "as": ann })).await;
        assert_eq!(told["limits"][0]["remaining"], 5);
        let instances = told["instances"].as_array().unwrap();
        let chosen: Vec<&Json> = instances.iter().filter(|one| one["chosen"] == true).collect();
        assert_eq!(chosen.len(), 1, "{told}");
        if instances.iter().any(|one| one["condition"] == "unfit") {
            assert_eq!(chosen[0]["instance"], address.as_str(), "{told}");
        }
    }
    // What is used up is told, too, and whom it concerns.
    let token = server.token_with("acme", "ann", json!({ "roles": ["buyer"] }));
    for _ in 0..5 {
        let client = server.client("acme", "ann");
        drop(client);
        let url = format!("{}/orders/7", server.base());
        let field = format!("authorization: Bearer {token}");
        Command::new("curl").args(["-s", "-o", "/dev/null", "-H", &field, &url]).status().unwrap();
    }
    let told = explained(&server, json!({ "url": url, "as": ann })).await;
    assert_eq!(
        (&told["outcome"], &told["limits"][0]["allows"]),
        (&json!("rate_limited"), &json!(false))
    );
    let by_token = json!({ "url": url, "headers": { "authorization": format!("Bearer {token}") } });
    assert_eq!(explained(&server, by_token).await["outcome"], "rate_limited");
    let bob = json!({ "tenant": "acme", "principal": "bob", "roles": ["buyer"] });
    assert_eq!(explained(&server, json!({ "url": url, "as": bob })).await["outcome"], "forwarded");
    let told = explained(&server, json!({ "url": "http://a/split/x" })).await;
    assert_eq!(
        (&told["split"][1]["service"], &told["split"][1]["chosen"]),
        (&json!("next"), &json!(true))
    );
}

#[tokio::test]
async fn it_tells_why_a_request_would_be_refused() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder);
    let server = Server::start(&config(&service));
    let ann = json!({ "tenant": "acme", "principal": "ann" });
    for (asked, outcome) in [
        (json!({ "url": "http://a/orders/7" }), "unauthenticated"),
        (json!({ "url": "http://a/orders/7", "as": ann }), "forbidden"),
        (json!({ "url": "http://a/orders/7", "method": "POST", "as": ann }), "method_not_allowed"),
        (json!({ "url": "http://a/nothing" }), "no_route"),
        (json!({ "url": "http://a/open/../x" }), "bad_request"),
        (json!({ "url": "http://a/crosstown/v1/whoami" }), "answered_here"),
        (json!({ "url": "http://a/open/x" }), "forwarded"),
    ] {
        let told = explained(&server, asked.clone()).await;
        assert_eq!(told["outcome"], outcome, "{asked}: {told}");
    }
    let refused = server.admin().post::<Json>("/explain", &json!({ "url": "http://a b/" })).await;
    assert!(refused.unwrap_err().to_string().contains("not a URL"));
    let config = server.folder().join("crosstown.toml");
    let run = |args: &[&str]| {
        let mut command = Command::new(binary());
        command.arg("explain").args(args).arg("--config").arg(&config).output().unwrap()
    };
    let output = run(&[
        "GET",
        "http://a/orders/7",
        "--tenant",
        "acme",
        "--principal",
        "ann",
        "--role",
        "buyer",
    ]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}");
    for line in
        ["route    * orders", "limit      few: 5 left of 5", "asks for   /v2/7", "instance * "]
    {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert!(!run(&["GET", "http://a/orders/7"]).status.success());
}

#[tokio::test]
async fn a_caller_with_the_role_is_told_which_way_the_request_went() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("v2")).unwrap();
    std::fs::write(folder.path().join("v2/7"), "seven").unwrap();
    let service = service(&folder);
    let server = Server::start_with("explain_roles = [\"curious\"]\n", &config(&service));
    let ask = |roles: Json, field: &str| {
        let token = server.token_with("acme", "ann", json!({ "roles": roles }));
        let url = format!("{}/orders/7", server.base());
        let output = Command::new("curl")
            .args(["-s", "-D", "-", "-o", "/dev/null", "-H", field])
            .args(["-H", &format!("authorization: Bearer {token}"), &url])
            .output()
            .unwrap();
        let head = String::from_utf8(output.stdout).unwrap();
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        let found = fields.find(|(name, _)| name.eq_ignore_ascii_case("x-crosstown-explain"));
        found.map(|(_, value)| serde_json::from_str::<Json>(value).unwrap())
    };
    let told = ask(json!(["buyer", "curious"]), "x-crosstown-explain: 1").unwrap();
    assert_eq!((&told["route"], &told["service"]), (&json!("orders"), &json!("shop")));
    assert_eq!(told["instance"], service.address().to_string());
    assert_eq!((&told["principal"], &told["remaining"]["few"]), (&json!("ann"), &json!(4)));
    assert_eq!(ask(json!(["buyer"]), "x-crosstown-explain: 1"), None);
    assert_eq!(ask(json!(["buyer", "curious"]), "x-other: 1"), None);
}

/// What is told of a request of this session.
async fn explained_of(server: &Server, session: &Made) -> Json {
    let headers = json!({ "x-session-token": session.token });
    let told = explained(server, json!({ "url": "http://rooms.example/who", "headers": headers }));
    let told = told.await;
    assert_eq!(told["outcome"], "forwarded", "{told}");
    told
}

/// The instance that is told to be taken, as often as it is asked.
async fn taken(server: &Server, session: &Made) -> String {
    let mut names = BTreeSet::new();
    for _ in 0..30 {
        let told = explained_of(server, session).await;
        assert_eq!(told["key"], format!("session {}", session.id()));
        let instances = told["instances"].as_array().unwrap().iter();
        let taken = instances.filter(|one| one["chosen"] == true);
        names.extend(taken.map(|one| one["instance"].as_str().unwrap().to_owned()));
    }
    let [name] = &Vec::from_iter(names)[..] else { panic!("one and then another") };
    name.clone()
}

/// Asks until it is told so of what the session is bound to.
async fn until_bound(server: &Server, session: &Made, is_it: impl Fn(&Json) -> bool) -> Json {
    let ask = async || explained_of(server, session).await;
    until("it is told", ask, |told| is_it(&told["bound"])).await
}

#[tokio::test]
async fn it_tells_to_which_instance_a_session_is_bound_and_whether_that_is_gone() {
    let mut instances = Instances::start();
    let urls = ["left", "middle", "right"].map(|name| instances.address_of(name));
    let urls = urls.map(|address| format!("\"http://{address}\"")).join(", ");
    let server = Server::start(&format!(
        "[services.rooms]\ninstances = [{urls}]\n\
         health = {{ interval = \"50ms\", unfit_after = 1 }}\n\
         [[routes]]\nname = \"rooms\"\nservice = \"rooms\"\n"
    ));
    let crm = crate::sessions::service(&server).await;
    let session = made(&crm, "ann", json!({})).await;
    let client = session.client(&server);
    assert_eq!(explained_of(&server, &session).await["bound"], Json::Null);
    let bind = async |instance: &str| {
        let wish = json!({ "service": "rooms", "instance": instance });
        let _: Json = crm.put(&format!("{}/route", session.path), &wish).await.unwrap();
    };

    let middle = instances.address_of("middle");
    bind(&middle).await;
    let told = explained_of(&server, &session).await;
    let why = "the session is bound to it, and it is fit";
    assert_eq!(told["bound"], json!({ "instance": middle, "holds": true, "why": why }));
    assert!(told["why"].as_str().unwrap().ends_with("to which its session is bound"), "{told}");
    assert_eq!(taken(&server, &session).await, middle);
    assert_eq!(client.get::<String>("/who").await.unwrap(), "middle");

    // It is gone: another one is told, which is the one that answers.
    instances.kill("middle");
    let told = until_bound(&server, &session, |bound| bound["holds"] == false).await;
    let why = "it failed its checks";
    assert_eq!(told["bound"], json!({ "instance": middle, "holds": false, "why": why }));
    let since = format!("since its session is bound to {middle}, and it failed its checks");
    assert!(told["why"].as_str().unwrap().ends_with(&since), "{told}");
    let next = taken(&server, &session).await;
    assert_ne!(next, middle);
    let name = client.get::<String>("/who").await.unwrap();
    assert_eq!(instances.address_of(&name), next);
    // From now on the session is bound to that one.
    let told = until_bound(&server, &session, |bound| bound["instance"] == next.as_str()).await;
    assert_eq!(told["bound"]["holds"], true, "{told}");
    assert_eq!(taken(&server, &session).await, next);

    // One that is no instance at all.
    bind("10.0.0.7:3000").await;
    let told = explained_of(&server, &session).await;
    let why = "the service has no such instance";
    assert_eq!(told["bound"], json!({ "instance": "10.0.0.7:3000", "holds": false, "why": why }));
    let next = taken(&server, &session).await;
    let name = client.get::<String>("/who").await.unwrap();
    assert_eq!(instances.address_of(&name), next);
    bind("10.0.0.7:3000").await;
    let output = Command::new(binary())
        .args(["explain", "GET", "http://rooms.example/who"])
        .args(["-H", &format!("x-session-token: {}", session.token)])
        .arg("--config")
        .arg(server.folder().join("crosstown.toml"))
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let line = "bound      to 10.0.0.7:3000: the service has no such instance";
    assert!(output.status.success() && printed.contains(line), "{printed}");
}
