//! Cores in virtual time.

use super::*;
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    mem::take,
};

const PRIORITIES: [Priority; 4] =
    [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];

/// Who asks.
#[derive(Clone, Copy)]
enum Clients {
    /// So many, that each request has a client of its own: so many times what the core can do.
    Many(f64),
    /// As many, each of which asks again as soon as it has an answer, whatever it is.
    Eager(u32),
}

/// A core that serves what is ready in order, and looks at itself as the real one does.
struct Core {
    overload: Overload,
    /// What a request and a refusal cost.
    work: Duration,
    refusal: Duration,
    lag_max: Duration,
    now: Duration,
    due: Duration,
    /// The timer was due, and is among what is ready.
    waiting: bool,
    look_at: Duration,
    arrivals: BinaryHeap<Reverse<(Duration, usize)>>,
    ready: VecDeque<Ready>,
    passed: Passed,
    random: u64,
}

enum Ready {
    Timer,
    Request(Duration, usize),
}

/// What became of requests, by priority.
#[derive(Debug, Default)]
struct Outcome {
    came: [u32; 4],
    served: [u32; 4],
    /// How long each waited that was served, and each that was refused.
    waits: Vec<Duration>,
    refusals: Vec<Duration>,
}

impl Core {
    fn new(work: Duration, refusal: Duration, lag_max: Duration) -> Self {
        Self {
            overload: Overload::default(),
            work,
            refusal,
            lag_max,
            now: Duration::ZERO,
            due: Duration::ZERO,
            waiting: false,
            look_at: Duration::MAX,
            arrivals: BinaryHeap::new(),
            ready: VecDeque::new(),
            passed: Passed::default(),
            random: 0x9E37_79B9_7F4A_7C15,
        }
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// A request of some priority, by its share of a hundred, a while from `after` on.
    fn arrive(&mut self, after: Duration, mean: Duration, mix: [u32; 4]) {
        let part = (self.random() >> 11) as f64 / (1_u64 << 53) as f64;
        let at = after + mean.mul_f64(-(1.0 - part).ln());
        let draw = u32::try_from(self.random() % 100).unwrap();
        let below = |place: &usize| draw < mix[..=*place].iter().sum();
        self.arrivals.push(Reverse((at, (0..4).find(below).unwrap())));
    }

    /// Serves until `until`; what is still to come then does not.
    fn run(&mut self, clients: Clients, mix: [u32; 4], until: Duration) -> Outcome {
        let mut outcome = Outcome::default();
        self.arrivals.clear();
        let between = match clients {
            Clients::Many(load) => self.work.div_f64(load),
            Clients::Eager(_) => Duration::from_millis(1),
        };
        match clients {
            Clients::Many(_) => self.arrive(self.now, between, mix),
            Clients::Eager(count) => (0..count).for_each(|_| self.arrive(self.now, between, mix)),
        }
        while self.now < until {
            self.gather(clients, between, mix, &mut outcome);
            match self.ready.pop_front() {
                Some(Ready::Timer) => {
                    let (lag, lag_max) = (self.now - self.due, self.lag_max);
                    self.due = self.now
                        + self.overload.served(self.now, lag, take(&mut self.passed), lag_max);
                    self.look_at = self.due.saturating_add(self.overload.bound(lag_max));
                    self.waiting = false;
                }
                Some(Ready::Request(came, place)) => {
                    self.serve(came, place, &mut outcome);
                    if let Clients::Eager(_) = clients {
                        self.arrive(self.now, between, mix);
                    }
                }
                None => {
                    let next = self.arrivals.peek().map_or(until, |Reverse((at, _))| *at);
                    self.now = self.due.min(next).min(until);
                }
            }
        }
        outcome
    }

    /// What has become ready since.
    fn gather(
        &mut self,
        clients: Clients,
        between: Duration,
        mix: [u32; 4],
        outcome: &mut Outcome,
    ) {
        let now = self.now;
        loop {
            let next = self.arrivals.peek().map(|Reverse(next)| *next).filter(|(at, _)| *at <= now);
            if !self.waiting && self.due <= next.map_or(now, |(at, _)| at) {
                self.waiting = true;
                self.ready.push_back(Ready::Timer);
            }
            let Some((at, place)) = next else { return };
            self.arrivals.pop();
            outcome.came[place] += 1;
            self.ready.push_back(Ready::Request(at, place));
            if let Clients::Many(_) = clients {
                self.arrive(at, between, mix);
            }
        }
    }

    fn serve(&mut self, came: Duration, place: usize, outcome: &mut Outcome) {
        let now = self.now;
        if now >= self.look_at {
            self.look_at = self.overload.waits(now, now - self.due, take(&mut self.passed));
        }
        let level = self.overload.per_mille();
        let refused = refuses(level, PRIORITIES[place], self.random());
        if refused {
            self.passed.refused += 1;
            outcome.refusals.push(now - came);
            self.now += self.refusal;
        } else {
            self.passed.served += 1;
            outcome.served[place] += 1;
            outcome.waits.push(now - came);
            self.now += self.work;
        }
    }
}

/// Of a core's time, the part that went into what was served.
fn goodput(outcome: &Outcome, work: Duration, time: Duration) -> f64 {
    work.as_secs_f64() * outcome.waits.len() as f64 / time.as_secs_f64()
}

fn median(waits: &mut [Duration]) -> Duration {
    let middle = waits.len() / 2;
    *waits.select_nth_unstable(middle).1
}

const EVEN: [u32; 4] = [25, 25, 25, 25];
const LAG_MAX: Duration = Duration::from_millis(50);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

#[test]
fn at_twice_its_load_a_core_serves_most_of_what_it_could_and_the_urgent_first() {
    // The less a request costs beside a refusal, the more of the time goes into these.
    for (work, refusal, least) in [(20_000, 300, 0.6), (1_000, 50, 0.85), (100, 25, 0.5)] {
        let work = micros(work);
        let mut core = Core::new(work, micros(refusal), LAG_MAX);
        core.run(Clients::Many(2.0), EVEN, seconds(10));
        let mut outcome = core.run(Clients::Many(2.0), EVEN, seconds(30));
        let good = goodput(&outcome, work, seconds(20));
        assert!(good >= least, "{work:?}: {good}");
        let served: Vec<f64> = (0..4)
            .map(|place| f64::from(outcome.served[place]) / f64::from(outcome.came[place]))
            .collect();
        assert!(served.is_sorted(), "{work:?}: {served:?}");
        assert!(served[0] < 0.05 && served[3] > 0.85, "{work:?}: {served:?}");
        let waits = median(&mut outcome.refusals);
        assert!(waits <= LAG_MAX, "{work:?}: {waits:?}");
        core.run(Clients::Many(0.5), EVEN, seconds(35));
        let after = core.run(Clients::Many(0.5), EVEN, seconds(45));
        assert!(after.refusals.is_empty(), "{work:?}: {}", after.refusals.len());
    }
}

#[test]
fn who_asks_again_at_once_does_not_make_a_core_refuse_all() {
    for mix in [EVEN, [0, 100, 0, 0], [0, 0, 0, 100]] {
        for clients in [Clients::Many(10.0), Clients::Eager(1_000)] {
            let mut core = Core::new(micros(1_000), micros(50), LAG_MAX);
            core.run(clients, mix, seconds(10));
            let good = goodput(&core.run(clients, mix, seconds(30)), core.work, seconds(20));
            assert!(good > 0.5, "{mix:?}: {good}");
        }
    }
}

#[test]
fn what_passes_by_itself_is_no_overload() {
    let refused =
        |core: &mut Core, clients, until| core.run(clients, EVEN, seconds(until)).refusals.len();
    // Nearly as much as it can do, with a queue now and then.
    let mut core = Core::new(micros(1_000), micros(50), LAG_MAX);
    assert_eq!(refused(&mut core, Clients::Many(0.9), 60), 0);
    // A task that does not yield, and what has come meanwhile.
    core.now += seconds(3);
    assert_eq!(refused(&mut core, Clients::Many(0.3), 120), 0);
    // More than it can do, for a moment.
    assert_eq!(refused(&mut core, Clients::Many(2.0), 121), 0);
    assert_eq!(refused(&mut core, Clients::Many(0.3), 180), 0);
    // As many clients as it can serve with the lag that is allowed.
    assert_eq!(refused(&mut core, Clients::Eager(20), 200), 0);
    // A machine that gives it a fifth of the time.
    for slice in 2_000..2_600 {
        let from = Duration::from_millis(100 * slice);
        core.now = core.now.max(from + Duration::from_millis(80));
        let outcome = core.run(Clients::Many(0.1), EVEN, from + Duration::from_millis(100));
        assert_eq!(outcome.refusals.len(), 0);
    }
}

#[test]
fn a_machine_that_is_late_does_not_make_a_core_refuse_what_it_could_serve() {
    let mut core = Core::new(micros(1_000), micros(50), LAG_MAX);
    core.run(Clients::Many(2.0), EVEN, seconds(10));
    assert!(core.overload.per_mille() > 0);
    // Whenever its timer is due, others have the machine for a while.
    while core.now < seconds(30) {
        core.run(Clients::Many(0.03), EVEN, core.due);
        core.now += Duration::from_millis(15);
        core.run(Clients::Many(0.03), EVEN, core.now + Duration::from_millis(1));
    }
    assert_eq!(core.overload.per_mille(), 0);
}

#[test]
fn whoever_wants_it_refuses_nothing() {
    let mut core = Core::new(micros(1_000), micros(50), Duration::ZERO);
    assert!(core.run(Clients::Many(2.0), EVEN, seconds(20)).refusals.is_empty());
    // Also while it refuses.
    core.lag_max = LAG_MAX;
    core.run(Clients::Eager(500), EVEN, seconds(60));
    assert!(core.overload.per_mille() > 0);
    core.lag_max = Duration::ZERO;
    core.run(Clients::Eager(500), EVEN, seconds(70));
    assert!(core.run(Clients::Eager(500), EVEN, seconds(80)).refusals.is_empty());
}

#[test]
fn a_level_refuses_whole_priorities_and_a_part_of_the_next() {
    let part = |level, priority| (0..1_000).filter(|draw| refuses(level, priority, *draw)).count();
    for (level, parts) in [
        (0, [0, 0, 0, 0]),
        (1, [1, 0, 0, 0]),
        (1_500, [1_000, 500, 0, 0]),
        (3_900, [1_000, 1_000, 1_000, 900]),
    ] {
        assert_eq!(PRIORITIES.map(|priority| part(level, priority)), parts, "{level}");
    }
}
