//! Which instance takes a call: the rules, without clocks and sockets.

use crate::{config::Balance, found::Origin, instance::Instance};
use smallvec::SmallVec;
use std::{sync::Arc, time::Duration};

/// Random instances are looked at so often before all are.
const GUESSES: u32 = 4;
/// With a consistent hash no instance takes more than this part of the average load above it
/// (Mirrokni, Thorup, Zadimoghaddam 2016).
const LOAD_ABOVE_AVERAGE: f64 = 0.25;

/// An instance and its share.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) instance: Arc<Instance>,
    pub(crate) weight: u32,
    pub(crate) origin: Origin,
}

impl Member {
    pub(crate) fn is(&self, instance: &Instance) -> bool {
        self.instance.id == instance.id
    }
}

/// What a choice depends on besides the instances.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Turn {
    /// The node's time.
    pub(crate) elapsed: Duration,
    /// How many choices came before.
    pub(crate) count: usize,
    /// Any number.
    pub(crate) random: u64,
    /// What has to come to the same instance each time.
    pub(crate) key: Option<u64>,
}

/// The rule of a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) balance: Balance,
    pub(crate) slow_start: Duration,
}

impl Rule {
    /// An open member other than those whose instances were `tried`.
    pub(crate) fn choose<'a>(
        &self,
        members: &'a [Member],
        tried: &[u64],
        turn: &Turn,
    ) -> Option<&'a Member> {
        let is_open = |member: &Member| {
            !tried.contains(&member.instance.id) && member.instance.is_open(turn.elapsed)
        };
        let open =
            || members.iter().filter(|member| is_open(member)).collect::<SmallVec<[_; 64]>>();
        match self.balance {
            Balance::LeastLoaded | Balance::PeakEwma => self.of_two(members, turn, is_open),
            Balance::RoundRobin => self.in_turn(&open(), turn),
            Balance::Random => self.by_share(&open(), turn, turn.random),
            Balance::LeastConnections => self.least(&open(), turn),
            Balance::ConsistentHash => self.by_key(&open(), turn),
        }
    }

    /// The better of two that are taken at random (Mitzenmacher 2001).
    fn of_two<'a>(
        &self,
        members: &'a [Member],
        turn: &Turn,
        is_open: impl Fn(&Member) -> bool,
    ) -> Option<&'a Member> {
        let mut random = turn.random;
        let mut guess = |other: Option<usize>| {
            for _ in 0..GUESSES {
                random = mixed(random);
                // The upper bits are the better ones.
                let index = ((u128::from(random) * members.len() as u128) >> 64) as usize;
                if Some(index) != other && is_open(&members[index]) {
                    return Some(index);
                }
            }
            let start = random as usize;
            let index = (0..members.len()).map(|step| (start.wrapping_add(step)) % members.len());
            let mut open = index.filter(|index| Some(*index) != other && is_open(&members[*index]));
            open.next()
        };
        let first = guess(None)?;
        let Some(second) = guess(Some(first)) else { return members.get(first) };
        let (first, second) = (&members[first], &members[second]);
        Some(if self.cost(second, turn) < self.cost(first, turn) { second } else { first })
    }

    /// One after another.
    fn in_turn<'a>(&self, open: &[&'a Member], turn: &Turn) -> Option<&'a Member> {
        if open.iter().all(|member| self.share(member, turn) == 1.0) {
            let place = turn.count.checked_rem(open.len())?;
            return open.get(place).copied();
        }
        // Multiples of the golden ratio fall evenly into any shares (Weyl 1916).
        let step = (turn.count as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.by_share(open, turn, step)
    }

    /// The one that costs least; any of those that do.
    fn least<'a>(&self, open: &[&'a Member], turn: &Turn) -> Option<&'a Member> {
        let start = (turn.random >> 32) as usize;
        (0..open.len())
            .map(|step| open[start.wrapping_add(step) % open.len()])
            .min_by(|a, b| self.cost(a, turn).total_cmp(&self.cost(b, turn)))
    }

    /// The one into whose share `point`, of the whole of 2^64, falls.
    fn by_share<'a>(&self, open: &[&'a Member], turn: &Turn, point: u64) -> Option<&'a Member> {
        let total: f64 = open.iter().map(|member| self.share(member, turn)).sum();
        let mut left = point as f64 / u64::MAX as f64 * total;
        for member in open {
            left -= self.share(member, turn);
            if left < 0.0 {
                return Some(member);
            }
        }
        open.last().copied()
    }

    /// The one that wins the key (rendezvous hashing, Thaler and Ravishankar 1998; with shares
    /// by Schindelhauer and Schomaker 2005), or the next if that one has too much to do.
    fn by_key<'a>(&self, open: &[&'a Member], turn: &Turn) -> Option<&'a Member> {
        let key = turn.key.unwrap_or(turn.random);
        let shares: f64 = open.iter().map(|member| f64::from(member.weight)).sum();
        let load: usize = open.iter().map(|member| member.instance.in_flight()).sum();
        let average = (load + 1) as f64 / shares;
        let has_room = |member: &Member| {
            let bound = average * f64::from(member.weight) * (1.0 + LOAD_ABOVE_AVERAGE);
            member.instance.in_flight() as f64 + 1.0 <= bound.ceil()
        };
        let score = |member: &Member| {
            let hash = mixed(key ^ key_hash(member.instance.authority.as_bytes()));
            let unit = (hash as f64 + 1.0) / (u64::MAX as f64 + 2.0);
            -f64::from(member.weight) / unit.ln()
        };
        let best = |of: &mut dyn Iterator<Item = &'a Member>| {
            of.max_by(|a, b| score(a).total_cmp(&score(b)))
        };
        let roomy = best(&mut open.iter().copied().filter(|member| has_room(member)));
        roomy.or_else(|| best(&mut open.iter().copied()))
    }

    /// What another call costs there, in units that only this rule knows.
    pub(crate) fn cost(&self, member: &Member, turn: &Turn) -> f64 {
        let load = member.instance.in_flight() as f64 + 1.0;
        let load = load / self.share(member, turn);
        match self.balance {
            // An instance that was never called is tried first.
            Balance::PeakEwma => load * (member.instance.latency().as_secs_f64() + 1e-9),
            Balance::RoundRobin
            | Balance::Random
            | Balance::LeastConnections
            | Balance::LeastLoaded
            | Balance::ConsistentHash => load,
        }
    }

    fn share(&self, member: &Member, turn: &Turn) -> f64 {
        f64::from(member.weight) * member.instance.warmth(self.slow_start, turn.elapsed)
    }
}

/// The finalizer of splitmix64 (Steele, Lea, Flood 2014).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a key is to [`crate::Pool::call`]: FNV-1a, which every node computes alike.
#[must_use]
pub fn key_hash(key: &[u8]) -> u64 {
    let begin = 0xcbf2_9ce4_8422_2325;
    key.iter().fold(begin, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
