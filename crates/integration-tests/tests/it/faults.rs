//! Two nodes on a Redis and a PostgreSQL that they share, under load, while nodes are killed,
//! paused and cut from their stores, and the stores are killed and started again.
//!
//! Both stores sync before they acknowledge, so nothing that was acknowledged may be missing:
//! not a document's entry, not a publication, not a session, and every recovery of a socket is
//! whole. Both tenants use the same names for all they have, and mark what they write.
//!
//! `CROSSTOWN_FAULT_SECONDS` says how long; `CROSSTOWN_SEED` repeats the faults of a run, though
//! not the moment of each request.

mod audit;
mod follower;
mod ground;
mod prober;
mod sessions;
mod writer;

use follower::Follower;
use ground::{Ground, World};
use integration_tests::Random;
use prober::Prober;
use sessions::Sessions;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use writer::Writer;

const TENANTS: [&str; 2] = ["acme", "globex"];
const USERS: [&str; 3] = ["ann", "bob", "eve"];
/// Between the last fault and the moment when every client is whole.
const WHOLE_WITHIN: Duration = Duration::from_secs(5);

fn seconds_wanted() -> u64 {
    let wanted = std::env::var("CROSSTOWN_FAULT_SECONDS");
    wanted.map_or(120, |text| text.parse().expect("`CROSSTOWN_FAULT_SECONDS` is a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_keep_their_promises_through_faults() {
    let seed = Random::seed();
    println!("seed {seed}");
    let random = Random::new(seed);
    let mut ground = Ground::start();
    let world = Arc::new(World::new(&ground, seed).await);
    let mut numbers = 100..;
    let mut random_of_task = || random.branch(numbers.next().unwrap());
    let (mut followers, mut writers, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
    for user in &world.users {
        let follower = Follower::new(world.clone(), user.clone(), random_of_task());
        followers.push(tokio::spawn(follower.work()));
    }
    // They see everything, from the first write on.
    world.whole_since(Instant::now(), WHOLE_WITHIN).await;
    world.check(|| "at first".to_owned());
    for user in &world.users {
        let writer = Writer::new(world.clone(), user.clone(), random_of_task());
        writers.push(tokio::spawn(writer.work()));
    }
    for tenant in TENANTS {
        let task = Sessions::new(world.clone(), tenant, random_of_task());
        sessions.push(tokio::spawn(task.work()));
    }
    let prober = tokio::spawn(Prober::new(world.clone()).work());

    let until = Instant::now() + Duration::from_secs(seconds_wanted());
    let mut faults = random.branch(1);
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(1_000 + faults.next() % 2_000)).await;
        let what = ground.harm(&mut faults).await;
        world.faults.fetch_add(1, Ordering::SeqCst);
        world.check(|| format!("after {what}"));
    }
    let healed = Instant::now();
    let whole = world.whole_since(healed, WHOLE_WITHIN).await;
    world.quiet.store(true, Ordering::SeqCst);
    let (mut written, mut seen, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for writer in writers {
        written.push(writer.await.unwrap());
    }
    for sessions in sessions {
        held.push(sessions.await.unwrap());
    }
    let admitted = prober.await.unwrap();
    // What was written last arrives, too.
    world.whole_since(Instant::now(), WHOLE_WITHIN).await;
    world.over.store(true, Ordering::SeqCst);
    for follower in followers {
        seen.push(follower.await.unwrap());
    }

    let totals = audit::all(&world, &written, &seen, &held).await;
    println!("faults: {}", ground.told());
    println!("{totals}; {admitted}; whole again after {whole:.0?}; seed {seed}");
    world.check(|| "after all".to_owned());
}
