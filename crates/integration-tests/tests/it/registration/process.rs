//! A service in a process of its own, which registers itself with the Rust client.

use client::{Client, InstanceOptions};
use integration_tests::Server;
use serde_json::{Value as Json, json};
use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Where the process is told what to do.
const ORDER: &str = "CROSSTOWN_TEST_SERVICE";

/// The running process; it is killed when dropped.
pub(crate) struct ServiceProcess(Child);

impl ServiceProcess {
    /// Starts a service that tells `name`, and registers as an instance of `shop`.
    pub(crate) fn start(node: &Server, key: &str, name: &str, ttl: Duration) -> Self {
        let ttl = u64::try_from(ttl.as_millis()).unwrap();
        let order = json!({ "base": node.base(), "key": key, "name": name, "ttl_ms": ttl });
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "registration::process::the_process", "--ignored"])
            .env(ORDER, order.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// As `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Has it deregister, finish what it does, and end.
    pub(crate) async fn end(mut self) {
        drop(self.0.stdin.take());
        let ended = tokio::task::spawn_blocking(move || self.0.wait().unwrap());
        assert!(ended.await.unwrap().success());
    }
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
#[ignore = "the process that other tests start"]
async fn the_process() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let order: Json = serde_json::from_str(&order).unwrap();
    let text = |name: &str| order[name].as_str().unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (name, busy) = (text("name"), Arc::new(AtomicUsize::new(0)));
    let working = busy.clone();
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, name.clone(), working.clone()));
        }
    });
    let ttl = Duration::from_millis(order["ttl_ms"].as_u64().unwrap());
    let client = Client::new(&text("base"), &text("key")).unwrap();
    let options = InstanceOptions { ttl, ..InstanceOptions::default() };
    let registration = client.register("shop", &url, options).await.unwrap();
    let asked = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    asked.await.unwrap().unwrap();
    registration.end().await.unwrap();
    // What was sent before is answered; after that nothing comes any more.
    tokio::time::sleep(Duration::from_millis(100)).await;
    accepting.abort();
    while busy.load(SeqCst) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn serve(mut stream: TcpStream, name: String, busy: Arc<AtomicUsize>) {
    let mut bytes = vec![0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut bytes).await {
        busy.fetch_add(1, SeqCst);
        if bytes[..length].starts_with(b"GET /slow") {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let answer = format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        let _ = stream.write_all(answer.as_bytes()).await;
        busy.fetch_sub(1, SeqCst);
    }
}
