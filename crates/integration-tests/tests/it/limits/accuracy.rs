//! How exact limits are: over any time, and by whichever road requests come.

use super::{WHOAMI, ready};
use client::Client;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use integration_tests::{Server, Socket};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{net::TcpStream, task::JoinSet};

const RATE: u64 = 200;
const BURST: u64 = 20;

fn rate(requests: u64, burst: u64) -> String {
    format!(
        "[[limits]]\nname = \"rate\"\nper = \"user\"\nrequests = {requests}\nperiod = \"1s\"\n\
         burst = {burst}\n"
    )
}

/// When each request was sent that was let in, and when its answer was there.
async fn let_in(caller: Client, until: Instant) -> Vec<(Instant, Instant)> {
    let mut let_in = Vec::new();
    while Instant::now() < until {
        let sent = Instant::now();
        match caller.call(Method::GET, WHOAMI, None).await.unwrap().status.as_u16() {
            200 => let_in.push((sent, Instant::now())),
            429 => {}
            other => panic!("{other}"),
        }
    }
    let_in
}

/// The node decided about a request after it was sent and before its answer was there. So those
/// that were sent at `a` or later and answered by `b` were all let in within `b - a`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_no_window_is_more_let_in_than_the_limit_however_many_ask() {
    let server = Server::start(&rate(RATE, BURST));
    ready(&server).await;
    let until = Instant::now() + Duration::from_secs(4);
    let mut clients = JoinSet::new();
    for _ in 0..64 {
        clients.spawn(let_in(server.client("acme", "ann"), until));
    }
    let mut all = clients.join_all().await.concat();
    all.sort();
    let most = |window: Duration| (BURST as f64 + RATE as f64 * window.as_secs_f64()) * 1.01;
    for (at, (begins, _)) in all.iter().enumerate().step_by(7) {
        let mut ends: Vec<Instant> = all[at..].iter().map(|(_, answered)| *answered).collect();
        ends.sort();
        for (count, end) in (1_u32..).zip(ends) {
            let window = end - *begins;
            assert!(f64::from(count) <= most(window) + 1.0, "{count} in {window:?}");
        }
    }
    let (first, last) = (all[0].0, all.iter().map(|(_, answered)| *answered).max().unwrap());
    println!("{} of at most {:.0}", all.len(), most(last - first));
    assert!(all.len() as u64 > BURST);
}

#[tokio::test]
async fn who_asks_steadily_gets_what_the_limit_promises() {
    // As many at once as in half a second: a pause of the machine so long costs nothing.
    let (rate_per_s, pause) = (100.0_f64, Duration::from_millis(500));
    let server = Server::start(&rate(100, 50));
    ready(&server).await;
    let caller = server.client("acme", "ann");
    // What was saved up would hide what is missing afterwards.
    while caller.call(Method::GET, WHOAMI, None).await.unwrap().status == 200 {}
    let begun = Instant::now();
    let (mut asked, mut got, mut lost) = (0_u32, 0_u32, Duration::ZERO);
    let mut last = begun;
    while begun.elapsed() < Duration::from_secs(4) {
        tokio::time::sleep_until((begun + asked * Duration::from_millis(7)).into()).await;
        let answer = caller.call(Method::GET, WHOAMI, None).await.unwrap();
        asked += 1;
        got += u32::from(answer.status == 200);
        lost += last.elapsed().saturating_sub(pause);
        last = Instant::now();
    }
    let promised = rate_per_s * (last - begun).saturating_sub(lost).as_secs_f64();
    let promised = promised.min(f64::from(asked)) * 0.99 - 1.0;
    println!("{got} of {asked}, of which {promised:.0} were promised");
    assert!(f64::from(got) >= promised, "{got} of {asked}, of which {promised} were promised");
}

/// One limit of 90: requests of HTTP/1.1, streams of one HTTP/2 connection, and commands of
/// sockets, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_streams_and_commands_draw_on_one_limit_exactly() {
    let server = Server::start(
        "[[limits]]\nname = \"all\"\nper = \"user\"\nrequests = 90\nperiod = \"31d\"\n",
    );
    ready(&server).await;
    let token = server.token("acme", "ann");
    let mut tasks: JoinSet<u64> = JoinSet::new();
    let plain = server.client("acme", "ann");
    tasks.spawn(async move {
        let mut count = 0;
        for _ in 0..60 {
            let answer = plain.call(Method::GET, WHOAMI, None).await.unwrap();
            count += u64::from(answer.status == 200);
        }
        count
    });
    let stream = TcpStream::connect(server.edge()).await.unwrap();
    let io = TokioIo::new(stream);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..60 {
        let mut sender = sender.clone();
        let request = Request::get(format!("{}{WHOAMI}", server.base()))
            .header("authorization", format!("Bearer {token}"))
            .body(Empty::<Bytes>::new())
            .unwrap();
        tasks.spawn(async move {
            let answer = sender.send_request(request).await.unwrap();
            let status = answer.status();
            answer.into_body().collect().await.unwrap();
            u64::from(status == 200)
        });
    }
    let (base, token) = (server.base(), token.clone());
    tasks.spawn(async move {
        let mut socket = Socket::connect(&base, &token).await;
        let mut count = 0;
        for n in 0..60 {
            let publish = json!({ "channel": "room", "data": n });
            count += u64::from(match socket.ask("publish", publish).await {
                Ok(_) => true,
                Err(error) => error["code"] != 111,
            });
        }
        count
    });
    let counts = tasks.join_all().await;
    assert_eq!(counts.iter().sum::<u64>(), 90, "{counts:?}");
}
