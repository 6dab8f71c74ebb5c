//! Limits: the first tenant uses them up, the others stay far below, and each is told what is
//! left of its own.

use super::worker::Worker;
use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Requests at once. A month's worth of them, so that next to nothing comes back in a test.
const TENANT_BURST: usize = 200;
const ROUTE_BURST: usize = 120;
const USER_BURST: usize = 15;
/// What the modest tenants allow themselves, of each limit.
const MODEST_SHARE: usize = 2;
/// A bucket may have been given back so many by time passing.
const SLACK: usize = 2;

/// What a tenant has taken of the limits, by route.
#[derive(Default)]
pub(super) struct Probes {
    left: usize,
    right: usize,
}

pub(super) fn config(upstream: u16) -> String {
    let rule = |name: &str, per: &str, burst: usize, route: &str| {
        format!(
            "[[limits]]\nname = \"{name}\"\nper = \"{per}\"\nrequests = 10000\nperiod = \"31d\"\n\
             burst = {burst}\nroutes = [{route}]\n"
        )
    };
    let route = |name: &str| {
        format!("[[routes]]\nname = \"{name}\"\nservice = \"shop\"\nprefix = \"/{name}\"\n")
    };
    [
        format!("[services.shop]\ninstances = [\"http://127.0.0.1:{upstream}\"]\n"),
        ["left", "right", "mine"].map(route).concat(),
        rule("by-tenant", "tenant", TENANT_BURST, "\"left\", \"right\""),
        rule("by-route", "route", ROUTE_BURST, "\"left\""),
        rule("by-user", "user", USER_BURST, "\"mine\""),
    ]
    .concat()
}

/// A service that says `ok`.
pub(super) async fn upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut head, mut buffer) = (Vec::new(), [0; 2048]);
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    head.extend_from_slice(&buffer[..read]);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        if stream.write_all(ok).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    port
}

impl Worker {
    /// Calls a limited route and compares the answer and what is left with what was taken.
    pub(super) async fn probe(&mut self) {
        let greedy = self.tenant == 0;
        let share = if greedy { 1 } else { MODEST_SHARE };
        let world = self.world.clone();
        match self.random.below(3) {
            0 => {
                let taken = self.taken_by_user;
                if !greedy && taken >= USER_BURST / share {
                    return;
                }
                let left = USER_BURST.saturating_sub(taken);
                self.taken_by_user += usize::from(self.ask_limited("mine", left).await);
            }
            1 => {
                let mut probes = world.tenants[self.tenant].probes.lock().await;
                let of_tenant = TENANT_BURST.saturating_sub(probes.left + probes.right);
                let left = ROUTE_BURST.saturating_sub(probes.left).min(of_tenant);
                if greedy || probes.left < ROUTE_BURST / share / 2 {
                    probes.left += usize::from(self.ask_limited("left", left).await);
                }
            }
            _ => {
                let mut probes = world.tenants[self.tenant].probes.lock().await;
                let left = TENANT_BURST.saturating_sub(probes.left + probes.right);
                if greedy || probes.left + probes.right < TENANT_BURST / share {
                    probes.right += usize::from(self.ask_limited("right", left).await);
                }
            }
        }
    }

    /// Whether the request was let through; `left` could be.
    async fn ask_limited(&mut self, route: &str, left: usize) -> bool {
        let user = self.user.clone();
        let answer = self.call_with(&user, Method::GET, &format!("/{route}"), None).await;
        let told = answer.headers.get("ratelimit").and_then(|told| told.to_str().ok());
        let told = told.unwrap_or_default().to_owned();
        let remaining = told.split(";r=").nth(1).and_then(|rest| rest.split(';').next());
        let remaining: usize = remaining.and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
        let allowed = answer.status.as_u16() == 200;
        let fits = if allowed {
            (left.saturating_sub(1)..left + SLACK).contains(&remaining)
        } else {
            answer.status.as_u16() == 429 && left <= SLACK
        };
        let status = answer.status;
        let name = &self.name;
        self.check(fits, || format!("{name}: {route}, {left} left: {status}, `{told}`"));
        allowed
    }
}
