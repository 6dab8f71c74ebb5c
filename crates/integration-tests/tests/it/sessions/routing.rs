//! Where the requests of sessions go, and whose go first.

use super::*;
use crate::affinity::Instances;
use std::{collections::BTreeSet, fs};
use test_servers::{Process, free_ports};

/// A route to the instances, by whichever is the less loaded.
fn config(instances: &Instances) -> String {
    let urls = ["left", "middle", "right"].map(|name| instances.address_of(name));
    let urls = urls.map(|address| format!("\"http://{address}\"")).join(", ");
    format!(
        "[services.rooms]\ninstances = [{urls}]\n\
         [[routes]]\nname = \"rooms\"\nservice = \"rooms\"\n"
    )
}

async fn comes_to(client: &Client, times: usize) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for _ in 0..times {
        names.insert(client.get::<String>("/who").await.unwrap());
    }
    names
}

fn only(name: &str) -> BTreeSet<String> {
    BTreeSet::from([name.to_owned()])
}

#[tokio::test]
async fn a_session_comes_to_the_instance_that_it_is_bound_to_as_long_as_that_is_fit() {
    let mut instances = Instances::start();
    let server = Server::start(&config(&instances));
    let crm = service(&server).await;
    let session = made(&crm, "ann", json!({ "pillars": ["content:room-1"] })).await;
    let ann = session.client(&server);
    let route = format!("{}/route", session.path);
    let middle = instances.address_of("middle");
    let wish = json!({ "service": "rooms", "instance": middle, "pillar": "content" });
    assert_eq!(refused(ann.put(&route, &wish).await).await, "forbidden");
    let elsewhere = json!({ "service": "rooms", "instance": middle, "pillar": "sales" });
    assert_eq!(refused(crm.put(&route, &elsewhere).await).await, "conflict");
    let bound: Json = crm.put(&route, &wish).await.unwrap();
    assert_eq!(bound["routes"]["rooms"]["instance"], json!(middle));
    assert_eq!(comes_to(&ann, 20).await, only("middle"));
    let other = made(&crm, "bob", json!({})).await.client(&server);
    assert!(comes_to(&other, 60).await.len() > 1, "others go where they went");

    // It is gone: all of the session's requests go to the same other one, which is noted.
    instances.kill("middle");
    let names = comes_to(&ann, 20).await;
    let [name] = &Vec::from_iter(names)[..] else { panic!("to several") };
    let told = until(
        "it is bound anew",
        async || events(&ann, &session, "kind=rebound").await,
        |told| !told.is_empty(),
    )
    .await;
    assert_eq!(
        (&told[0]["from"], &told[0]["instance"], &told[0]["service"]),
        (&json!(middle), &json!(instances.address_of(name)), &json!("rooms"))
    );
    assert_eq!(comes_to(&ann, 20).await, only(name));
    assert_eq!(events(&ann, &session, "kind=rebound").await.len(), 1);
    let read: Json = ann.get(&session.path).await.unwrap();
    assert_eq!(read["routes"]["rooms"]["pillar"], "content");

    let table = cli(&server, &["route", session.id(), "--service", "rooms"]).await;
    assert!(!table.contains("routes"), "{table}");
    assert_eq!(kinds(&events(&ann, &session, "limit=1").await), ["routed"]);
}

/// Answers each request after a while, as many as come at once.
const SLOW: &str = "\
import http.server, sys, time
class Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(3)
        self.send_response(200)
        self.send_header('content-length', '0')
        self.end_headers()
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Slow).serve_forever()
";

#[tokio::test]
async fn what_a_session_asks_for_goes_before_others_as_services_say() {
    let folder = tempfile::tempdir().unwrap();
    let [port] = free_ports().unwrap();
    let mut command = Command::new("python3");
    fs::write(folder.path().join("slow.py"), SLOW).unwrap();
    command.args(["slow.py", &port.to_string()]).current_dir(folder.path());
    let slow = Process::start(&mut command, port, &folder.path().join("log")).unwrap();
    let server = Server::start(&format!(
        "[services.slow]\ninstances = [\"http://{}\"]\n\
         concurrency = {{ max = 10, adaptive = false }}\n\
         [[routes]]\nname = \"slow\"\nservice = \"slow\"\n",
        slow.address()
    ));
    let crm = service(&server).await;
    let [low, plain, urgent] = [
        made(&crm, "low", json!({})).await,
        made(&crm, "plain", json!({})).await,
        made(&crm, "urgent", json!({})).await,
    ];
    let own = json!({ "priority": "urgent" });
    assert_eq!(refused(low.client(&server).patch(&low.path, &own).await).await, "forbidden");
    let changed: Json = crm.patch(&low.path, &json!({ "priority": "low" })).await.unwrap();
    assert_eq!(changed["priority"], "low");
    cli(&server, &["priority", urgent.id(), "urgent"]).await;

    // Of ten places, half are for what is low, and all for what is urgent.
    let ask = async |session: &Made, times: usize| {
        let client = session.client(&server);
        let asking = (0..times).map(|_| client.call(Method::GET, "/", None));
        let answers = futures_util::future::join_all(asking).await;
        answers.into_iter().filter(|answer| answer.as_ref().unwrap().status == 200).count()
    };
    let after = async |millis: u64, session: &Made, times: usize| {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        ask(session, times).await
    };
    let served =
        tokio::join!(after(0, &low, 10), after(700, &plain, 10), after(1_400, &urgent, 10));
    assert_eq!(served, (5, 3, 2));
}
