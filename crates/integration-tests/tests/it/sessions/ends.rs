//! How sessions end: by a limit, by their time, with a device.

use super::*;

const PINGS: &str = "[realtime]\nping_interval = \"25s\"\npong_timeout = \"8s\"\n";

fn on(device: &str) -> Json {
    json!({ "device": { "id": device, "name": device } })
}

#[tokio::test]
async fn whose_session_ends_for_another_one_is_told() {
    let server = Server::start(
        "[sessions]\nper_user_max = 3\nper_device_max = 1\non_limit = \"end_oldest\"\n",
    );
    let crm = service(&server).await;
    let first = made(&crm, "ann", on("phone")).await;
    let mut socket = Socket::connect(&server.base(), &first.token).await;
    let second = made(&crm, "ann", on("phone")).await;
    assert_eq!(socket.close_code().await, 3503);
    assert_eq!(socket.closed.unwrap().1, "session ended: limit");
    let gone = first.client(&server).get::<Json>("/crosstown/v1/whoami").await;
    assert_eq!(refused(gone).await, "unauthenticated");
    let told = events(&crm, &first, "kind=revoked").await;
    assert_eq!((&told[0]["reason"], &told[0]["by"]), (&json!("limit"), &json!("service:crm")));
    // Four more devices: three sessions are left, the newest.
    let mut all = vec![second];
    for device in ["a", "b", "c", "d"] {
        all.push(made(&crm, "ann", on(device)).await);
    }
    let listed: Json = crm.get(&format!("{SESSIONS}?user=ann")).await.unwrap();
    let ids: Vec<_> = listed["sessions"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, all[2..].iter().map(Made::id).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_not_used_ends_first_where_that_is_the_policy_and_at_once_is_exact() {
    let server = Server::start("[sessions]\nper_user_max = 2\non_limit = \"end_least_recent\"\n");
    let crm = service(&server).await;
    let (first, second) = (made(&crm, "ann", json!({})).await, made(&crm, "ann", json!({})).await);
    let refresh = format!("{}/refresh", first.path);
    let _: Json = first.client(&server).post(&refresh, &json!({})).await.unwrap();
    let _third = made(&crm, "ann", json!({})).await;
    assert!(first.client(&server).get::<Json>(&first.path).await.is_ok());
    assert!(second.client(&server).get::<Json>(&second.path).await.is_err());

    let making = (0..12).map(|_| made(&crm, "bob", json!({})));
    let all = futures_util::future::join_all(making).await;
    let mut let_in = 0;
    for session in &all {
        let client = session.client(&server);
        let_in += usize::from(client.get::<Json>("/crosstown/v1/whoami").await.is_ok());
    }
    assert_eq!(let_in, 2);
}

#[tokio::test]
async fn sockets_close_when_their_session_is_over_and_say_of_what() {
    let server = Server::start(PINGS);
    let crm = service(&server).await;
    let idle = made(&crm, "ann", json!({ "ttl": "2s" })).await;
    let whole = made(&crm, "ann", json!({ "ttl": "2s", "ttl_max": "4s" })).await;
    let mut sockets = [
        Socket::connect(&server.base(), &idle.token).await,
        Socket::connect(&server.base(), &whole.token).await,
    ];
    // The second is used, as long as it lives.
    let using = async {
        let client = whole.client(&server);
        while client.post::<Json>(&format!("{}/refresh", whole.path), &json!({})).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let [first, second] = &mut sockets;
    let closing = async { tokio::join!(first.close_code(), second.close_code(), using) };
    // Pings come as long as a socket is open.
    let closed = tokio::time::timeout(Duration::from_secs(60), closing).await;
    let (first_code, second_code, ()) = closed.expect("both close");
    assert_eq!((first_code, second_code), (3005, 3005));
    let reasons = sockets.map(|socket| socket.closed.unwrap().1);
    assert_eq!(reasons, ["session ended: idle", "session ended: absolute"]);
    for (session, why) in [(&idle, "idle"), (&whole, "absolute")] {
        let told = events(&crm, session, "kind=expired").await;
        assert_eq!(told[0]["reason"], why, "{told:?}");
    }
}

#[tokio::test]
async fn devices_are_listed_and_what_is_on_one_ends_at_once() {
    let server = Server::start("[sessions]\naddresses = \"full\"\n");
    let crm = service(&server).await;
    let phones = [made(&crm, "ann", on("phone")).await, made(&crm, "ann", on("phone")).await];
    let ann = server.client("acme", "ann");
    let wish = json!({ "device": { "id": "laptop", "name": "work", "kind": "laptop" } });
    let laptop = Made::of(&ann.post::<Json>(SESSIONS, &wish).await.unwrap());
    let devices: Json = ann.get(&format!("{SESSIONS}/devices")).await.unwrap();
    let devices = devices["devices"].as_array().unwrap();
    let find = |id: &str| devices.iter().find(|on| on["id"] == id).unwrap();
    assert_eq!(find("phone")["sessions"].as_array().unwrap().len(), 2);
    assert!(find("phone")["address"].is_null(), "the service's own says nothing of it");
    let told = find("laptop");
    assert_eq!(
        (&told["name"], &told["kind"], &told["address"]),
        (&json!("work"), &json!("laptop"), &json!("127.0.0.1"))
    );
    assert!(told["first_seen"].as_u64() <= told["last_seen"].as_u64(), "{told}");
    let on_phone: Json = ann.get(&format!("{SESSIONS}?device=phone")).await.unwrap();
    assert_eq!(on_phone["sessions"].as_array().unwrap().len(), 2);

    let mut socket = Socket::connect(&server.base(), &phones[0].token).await;
    assert_eq!(end(&ann, "device=phone").await, json!({ "ended": 2 }));
    assert_eq!(socket.close_code().await, 3503);
    assert_eq!(socket.closed.unwrap().1, "session ended: device ended");
    for phone in &phones {
        assert!(phone.client(&server).get::<Json>(&phone.path).await.is_err());
    }
    assert!(laptop.client(&server).get::<Json>(&laptop.path).await.is_ok());
    let bob = server.client("acme", "bob");
    assert_eq!(end(&bob, "user=ann").await["code"], "forbidden");
    assert_eq!(end(&bob, "everyone=true").await["code"], "forbidden");
    let table = cli(&server, &["devices", "--user", "ann"]).await;
    assert!(table.contains("laptop") && !table.contains("phone"), "{table}");
    let said = cli(&server, &["end", "--user", "ann"]).await;
    assert_eq!(said, "1 ended\n");
    assert!(laptop.client(&server).get::<Json>(&laptop.path).await.is_err());
}
