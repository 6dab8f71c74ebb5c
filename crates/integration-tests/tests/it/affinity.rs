//! Sessions that are bound to the same come to the same instance.

use client::Client;
use integration_tests::{Server, binary};
use serde_json::{Value as Json, json};
use std::{collections::BTreeSet, fs, process::Command};
use tempfile::TempDir;
use test_servers::{Process, free_ports};

const SESSIONS: &str = "/crosstown/v1/sessions";
const NAMES: [&str; 3] = ["left", "middle", "right"];

/// Three instances of a service, each of which tells its name.
pub(crate) struct Instances {
    _folder: TempDir,
    processes: Vec<Process>,
}

impl Instances {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let start = |name: &str| {
            let place = folder.path().join(name);
            fs::create_dir(&place).unwrap();
            fs::write(place.join("who"), format!("\"{name}\"")).unwrap();
            let [port] = free_ports().unwrap();
            let mut command = Command::new("python3");
            command.args(["-m", "http.server", &port.to_string(), "--bind", "127.0.0.1"]);
            Process::start(command.current_dir(&place), port, &place.join("log")).unwrap()
        };
        let processes = NAMES.map(start).into();
        Self { _folder: folder, processes }
    }

    /// A route to them, by what sessions are bound to in the pillar `content`.
    pub(crate) fn config(&self) -> String {
        let urls = self.processes.iter().map(|one| format!("\"http://{}\"", one.address()));
        let urls = urls.collect::<Vec<_>>().join(", ");
        format!(
            "[services.rooms]\ninstances = [{urls}]\nbalance = \"consistent_hash\"\n\
             hash = \"pillar:content\"\n[[routes]]\nname = \"rooms\"\nservice = \"rooms\"\n"
        )
    }

    /// Host and port of an instance.
    pub(crate) fn address_of(&self, name: &str) -> String {
        let at = NAMES.iter().position(|known| *known == name).unwrap();
        self.processes[at].address().to_string()
    }

    /// Ends an instance.
    pub(crate) fn kill(&mut self, name: &str) {
        let at = NAMES.iter().position(|known| *known == name).unwrap();
        self.processes[at].kill().unwrap();
    }

    fn name_of(&self, address: &Json) -> &'static str {
        let at = self.processes.iter().position(|one| one.address().to_string() == *address);
        NAMES[at.unwrap()]
    }
}

/// A session, and who is asked by its credential.
pub(crate) struct Bound {
    path: String,
    token: String,
}

impl Bound {
    /// A session of `user` that works in these pillars.
    pub(crate) async fn new(service: &Client, user: &str, pillars: &[&str]) -> Self {
        let wish = json!({ "pillars": pillars });
        let made: Json = service.post(&format!("{SESSIONS}?user={user}"), &wish).await.unwrap();
        assert_eq!(made["pillars"], json!(pillars));
        Self {
            path: format!("{SESSIONS}/{}", made["id"].as_str().unwrap()),
            token: made["token"].as_str().unwrap().to_owned(),
        }
    }

    pub(crate) async fn bind(&self, service: &Client, pillars: &[&str]) {
        let wish = json!({ "pillars": pillars });
        let changed: Json = service.patch(&self.path, &wish).await.unwrap();
        assert_eq!(changed["pillars"], json!(pillars));
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// The instance that answers.
    pub(crate) async fn comes_to(&self, node: &Server) -> String {
        comes_to(node, &self.token).await
    }
}

async fn comes_to(node: &Server, token: &str) -> String {
    Client::new(&node.base(), token).unwrap().get("/who").await.unwrap()
}

/// Where sessions come that are bound to each of many rooms, by the first of them.
pub(crate) async fn rooms(node: &Server, service: &Client) -> Vec<(String, String)> {
    let mut rooms = Vec::new();
    for number in 0..16 {
        let room = format!("content:room-{number}");
        let session = Bound::new(service, &format!("user-{number}"), &[&room]).await;
        rooms.push((room, session.comes_to(node).await));
    }
    let used: BTreeSet<&String> = rooms.iter().map(|(_, instance)| instance).collect();
    assert!(used.len() > 1, "{rooms:?}");
    rooms
}

#[tokio::test]
async fn who_is_bound_to_the_same_comes_to_the_same_instance() {
    let instances = Instances::start();
    let node = Server::start(&instances.config());
    let key = node.api_key("acme", "crm").await;
    let service = Client::new(&node.base(), &key).unwrap();
    let rooms = rooms(&node, &service).await;

    // Other sessions of other users, by a token of theirs as well.
    for (room, instance) in &rooms {
        let other = Bound::new(&service, "ann", &[room, "insights"]).await;
        for _ in 0..3 {
            assert_eq!(other.comes_to(&node).await, *instance, "{room}");
        }
        service.delete(&other.path).await.unwrap();
        let token = node.token_with("acme", "bob", json!({ "pillars": [room] }));
        assert_eq!(comes_to(&node, &token).await, *instance, "{room}");
    }
    // Another binding holds from the next request on.
    let moving = Bound::new(&service, "cat", &[&rooms[0].0]).await;
    for (room, instance) in rooms.iter().chain(rooms.iter().rev()) {
        moving.bind(&service, &[room]).await;
        assert_eq!(moving.comes_to(&node).await, *instance, "{room}");
    }
    // Whoever is bound to nothing stays by the session.
    let mut places = BTreeSet::new();
    for number in 0..16 {
        let pillars: &[&str] = if number % 2 == 0 { &["content"] } else { &["insights:room-1"] };
        let alone = Bound::new(&service, &format!("alone-{number}"), pillars).await;
        let first = alone.comes_to(&node).await;
        for _ in 0..3 {
            assert_eq!(alone.comes_to(&node).await, first);
        }
        places.insert(first);
    }
    assert!(places.len() > 1, "{places:?}");
    // It is told.
    let (room, instance) = &rooms[0];
    moving.bind(&service, &[room]).await;
    let (url, token) = ("http://a/who", &moving.token);
    let asked = json!({ "url": url, "headers": { "x-session-token": token } });
    let told: Json = node.admin().post("/explain", &asked).await.unwrap();
    assert_eq!(told["key"], format!("pillar {room} of acme"), "{told}");
    let chosen = told["instances"].as_array().unwrap().iter().find(|one| one["chosen"] == true);
    assert_eq!(instances.name_of(&chosen.unwrap()["instance"]), instance);
    let config = node.folder().join("crosstown.toml");
    let output = Command::new(binary())
        .args(["explain", "GET", url, "-H", &format!("x-session-token: {token}"), "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains(&format!("key        pillar {room} of acme\n")), "{told}");
}

#[tokio::test]
async fn a_pillar_is_bound_to_one_by_those_who_may() {
    let instances = Instances::start();
    let node = Server::start(&instances.config());
    let key = node.api_key("acme", "crm").await;
    let service = Client::new(&node.base(), &key).unwrap();
    let session = Bound::new(&service, "ann", &["content:room-1"]).await;
    let own = Client::new(&node.base(), &session.token).unwrap();
    let wish = json!({ "pillars": ["content:room-2"] });
    let refused = own.patch::<Json>(&session.path, &wish).await.unwrap_err();
    assert_eq!(refused.code(), Some("forbidden"));
    for bad in [&["content:a", "content:b"][..], &["content:"], &["content:a b"], &[":a"]] {
        let wish = json!({ "pillars": bad });
        let refused = service.patch::<Json>(&session.path, &wish).await.unwrap_err();
        assert_eq!(refused.code(), Some("bad_request"), "{bad:?}");
    }
    let who: Json = own.get("/crosstown/v1/whoami").await.unwrap();
    assert_eq!(who["pillars"], json!(["content:room-1"]));
}
