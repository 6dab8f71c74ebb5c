use super::*;
use clock::{Clock, SystemClock};
use std::sync::{
    Barrier,
    atomic::{AtomicBool, Ordering},
};
use types::Timestamp;

#[test]
fn answers_in_a_row_decide() {
    let health: HealthConfig = toml::from_str("unfit_after = 3\nfit_after = 2").unwrap();
    let (mut in_row, mut fit) = (InRow::default(), true);
    let mut seen = String::new();
    for answer in "++--+---+-++-".bytes().map(|byte| byte == b'+') {
        fit = in_row.next(answer, fit, &health).unwrap_or(fit);
        seen.push(if fit { '+' } else { '-' });
    }
    assert_eq!(seen, "+++++++---".to_owned() + "-++");
}

/// Who first asks for the time waits, once it is told that somebody does, until it may go on.
struct Held {
    clock: SharedClock,
    is_asked: AtomicBool,
    barrier: Barrier,
}

impl Clock for Held {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn elapsed(&self) -> Duration {
        if !self.is_asked.swap(true, Ordering::SeqCst) {
            self.barrier.wait();
            self.barrier.wait();
        }
        self.clock.elapsed()
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.clock.fill_random(bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_ends_after_it_was_stopped_decides_nothing() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!("instances = [\"http://{nobody}\"]\nhealth = {{ unfit_after = 1 }}");
    let config = Config::from([("s".to_owned(), toml::from_str(&text).unwrap())]);
    let services = Services::compile(&config, None).unwrap();
    let held = Arc::new(Held {
        clock: SystemClock::shared(),
        is_asked: AtomicBool::new(false),
        barrier: Barrier::new(2),
    });
    let clock: SharedClock = held.clone();
    let checks = Checks::start(&services, &clock);
    tokio::task::block_in_place(|| held.barrier.wait());
    let deciding = Arc::downgrade(&checks.deciding);
    drop(checks);
    tokio::task::block_in_place(|| held.barrier.wait());
    while deciding.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
    for service in services.iter() {
        service.instances(|instance, _, _| {
            assert_eq!(instance.condition(clock.elapsed()), Condition::Fit);
        });
    }
}
