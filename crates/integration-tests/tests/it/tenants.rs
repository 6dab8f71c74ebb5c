//! No tenant reads, changes or counts against another. Workers of three tenants, with the same
//! user, document and channel names in each, do random things over HTTP and sockets; more than
//! a fifth of them name an id that is really another tenant's. Whatever is written carries a
//! mark of its tenant, and each worker compares what it reads with what it wrote, so refusing
//! everything would not do.
//!
//! `CROSSTOWN_SEED` repeats the choices of a run; `CROSSTOWN_TENANT_OPERATIONS` says how many.

mod limits;
mod trespass;
mod worker;
mod world;

use client::Client;
use integration_tests::{Random, Server};
use serde_json::Value as Json;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use worker::Worker;
use world::{TENANTS, World};

/// Workers of a tenant.
const WORKERS: usize = 8;
/// Of 100 operations at least so many name another tenant's id.
const FOREIGN_PERCENT_MIN: usize = 20;

fn operations_wanted() -> usize {
    let wanted = std::env::var("CROSSTOWN_TENANT_OPERATIONS");
    wanted.map_or(100_000, |text| text.parse().expect("it is a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tenant_reaches_another() {
    let (seed, begun) = (Random::seed(), Instant::now());
    println!("seed {seed}");
    let server = Server::start(&config(limits::upstream().await));
    let world = Arc::new(World::new(&server).await);
    let steps = operations_wanted().div_ceil(TENANTS.len() * WORKERS);
    let mut workers = Vec::new();
    for tenant in 0..TENANTS.len() {
        for number in 0..WORKERS {
            let random = Random::new(seed).branch((tenant * WORKERS + number) as u64);
            workers.push(Worker::start(&server, world.clone(), tenant, number, random).await);
        }
    }
    world.working.store(workers.len(), Ordering::SeqCst);
    // All are there before anybody reaches for what is another's.
    let tasks: Vec<_> = workers.drain(..).map(|worker| tokio::spawn(worker.work(steps))).collect();
    for task in tasks {
        workers.push(task.await.unwrap());
    }
    for worker in &mut workers {
        worker.settle().await;
    }
    reports_are_exact(&world).await;
    let count = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::SeqCst);
    let (operations, foreign) = (count(&world.operations), count(&world.foreign));
    println!(
        "operations {operations}, naming another tenant's id {foreign} ({:.1} %), cross-reads {}, \
         other surprises {}, own values read and compared {}, pushes compared {}, seed {seed}, \
         {:.0?}",
        foreign as f64 * 100.0 / operations as f64,
        count(&world.cross_reads),
        count(&world.surprises),
        count(&world.compared),
        count(&world.pushes),
        begun.elapsed()
    );
    let wrong = world.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
    assert!(foreign * 100 >= operations * FOREIGN_PERCENT_MIN, "too few name another's id");
}

fn config(upstream: u16) -> String {
    format!(
        "{}
[sessions]
per_user_max = 100
[state]
history_max = 100000
[realtime]
recover_max = 100000
queue_bytes_max = 16777216
[[realtime.namespaces]]
name = \"\"
history_size = 100000
",
        limits::config(upstream)
    )
}

/// When all is quiet, each tenant's report counts its own requests and refusals: no more,
/// and no less.
async fn reports_are_exact(world: &World) {
    for tenant in &world.tenants {
        let service = tenant.service.clone();
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let expected = tenant.counted();
            let path = "/crosstown/v1/analytics/traffic?range=1h";
            let report: Json = service.get(path).await.expect("a report");
            tenant.requests.fetch_add(1, Ordering::SeqCst);
            let total = &report["total"];
            let got = ["requests", "client_errors", "limited"]
                .map(|name| total[name].as_u64().expect("a figure") as usize);
            // A core hands over what it counted each second, and the report takes it in a second.
            if got == expected {
                assert!(report.get("tenants").is_none(), "{report}");
                break;
            }
            if Instant::now() > until {
                let name = tenant.name;
                world.surprise(format!("{name}'s traffic is {got:?}, not {expected:?}"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(2_500)).await;
        }
    }
}

/// A client of the operator's listener with a tenant's credential.
fn admin(server: &Server, credential: &str) -> Client {
    Client::new(&server.admin_base(), credential).expect("an address")
}
