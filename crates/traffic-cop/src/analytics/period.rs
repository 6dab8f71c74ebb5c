//! Which time a report is about, and which spans it is put together from.

use jiff::Timestamp as Moment;
use std::time::Duration;
use types::Timestamp;

const SECOND: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE_MS;
const DAY: u64 = 24 * HOUR;

/// A width of spans: what is counted is kept in spans of each.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Width {
    /// Its name, in keys of the store.
    pub(super) name: &'static str,
    pub(super) millis: u64,
    /// How far back reports may be put together from it.
    pub(super) reach: u64,
    /// Spans of so much time share a partition of the store, and there are so many partitions,
    /// which are used in turn.
    pub(super) block: u64,
    pub(super) blocks: u64,
    /// Spans that stay in memory, and their bytes.
    pub(super) held: usize,
    pub(super) held_bytes: usize,
    /// Consumers that are stored of a span.
    pub(super) consumers: usize,
}

pub(super) const SLICE: Width = Width {
    name: "slice",
    millis: 5 * SECOND,
    reach: 10 * MINUTE_MS,
    block: MINUTE_MS,
    blocks: 16,
    held: 130,
    held_bytes: 6 * 1024 * 1024,
    consumers: 256,
};

pub(super) const MINUTE: Width = Width {
    name: "minute",
    millis: MINUTE_MS,
    reach: 2 * HOUR,
    block: 10 * MINUTE_MS,
    blocks: 16,
    held: 130,
    held_bytes: 8 * 1024 * 1024,
    consumers: 512,
};

pub(super) const QUARTER: Width = Width {
    name: "quarter",
    millis: 15 * MINUTE_MS,
    reach: 7 * DAY,
    block: HOUR,
    blocks: 192,
    held: 100,
    held_bytes: 8 * 1024 * 1024,
    consumers: 512,
};

/// From the finest to the coarsest.
pub(super) const WIDTHS: [&Width; 3] = [&SLICE, &MINUTE, &QUARTER];

impl Width {
    /// When the span of a moment began.
    pub(super) fn start(&self, at: Timestamp) -> u64 {
        at.0 / self.millis * self.millis
    }

    /// The number of the partition that has the span.
    pub(super) fn block_of(&self, start: u64) -> u64 {
        start / self.block % self.blocks
    }

    /// How long a span is kept in the store after it was written last.
    pub(super) fn kept(&self) -> Duration {
        Duration::from_millis(self.reach + self.block)
    }
}

/// A time that a report is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    pub(super) name: &'static str,
    /// Where its first span begins.
    pub(super) from: u64,
    /// Up to here, and not at it.
    pub(super) to: u64,
    pub(super) width: &'static Width,
    /// How wide the points of its series are.
    pub(super) point: u64,
}

/// What a period may be called.
const NAMED: [(&str, u64, &Width, u64); 6] = [
    ("1m", MINUTE_MS, &SLICE, SLICE.millis),
    ("5m", 5 * MINUTE_MS, &SLICE, SLICE.millis),
    ("1h", HOUR, &MINUTE, MINUTE.millis),
    ("6h", 6 * HOUR, &QUARTER, QUARTER.millis),
    ("24h", DAY, &QUARTER, QUARTER.millis),
    ("7d", 7 * DAY, &QUARTER, HOUR),
];

impl Period {
    /// Reads `1m`, `5m`, `1h`, `6h`, `24h` or `7d`, up to `now`; in their place a beginning and an
    /// end, which is `now` unless given, in RFC 3339 or in milliseconds since 1970. Nothing: an
    /// hour.
    ///
    /// # Errors
    /// A sentence that says what is accepted.
    pub fn read(
        range: Option<&str>,
        from: Option<&str>,
        to: Option<&str>,
        now: Timestamp,
    ) -> Result<Self, String> {
        match (range, from, to) {
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
                Err("give either `range`, or `from` and `to`".into())
            }
            (None, None, Some(_)) => Err("`to` goes with `from`".into()),
            (None, None, None) => Self::named("1h", now),
            (Some(name), None, None) => Self::named(name, now),
            (None, Some(from), to) => {
                let to = to.map_or(Ok(now), |to| moment("to", to))?;
                Self::between(moment("from", from)?, to, now)
            }
        }
    }

    /// The last time of this name.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn named(name: &str, now: Timestamp) -> Result<Self, String> {
        let Some((name, millis, width, point)) = NAMED.iter().find(|named| named.0 == name) else {
            return Err(format!(
                "`{name}` is not a range; use `1m`, `5m`, `1h`, `6h`, `24h` or `7d`, or give \
                 `from` and `to`"
            ));
        };
        let from = width.start(Timestamp(now.0.saturating_sub(*millis)));
        // The second of now is in it.
        Ok(Self { name, from, to: now.0 + 1, width, point: *point })
    }

    fn between(from: Timestamp, to: Timestamp, now: Timestamp) -> Result<Self, String> {
        if from >= to {
            return Err("`from` must lie before `to`".into());
        }
        if from > now {
            return Err("`from` lies in the future".into());
        }
        let (age, length) = (now.0 - from.0, to.0.min(now.0 + 1) - from.0);
        let width = match WIDTHS.iter().find(|width| age <= width.reach && length <= width.reach) {
            Some(width) => *width,
            None => return Err("`from` lies more than 7 days back; no more is kept".into()),
        };
        let point = if length > DAY { HOUR } else { width.millis };
        let to = to.0.min(now.0 + 1).div_ceil(width.millis) * width.millis;
        Ok(Self { name: "custom", from: width.start(from), to: to.min(now.0 + 1), width, point })
    }

    /// The minutes that are over, as far back as there are any.
    pub(super) fn whole_minutes(now: Timestamp) -> Self {
        let to = MINUTE.start(now);
        Self {
            name: "custom",
            from: to.saturating_sub(MINUTE.reach),
            to,
            width: &MINUTE,
            point: MINUTE.millis,
        }
    }

    pub(super) fn has(&self, start: u64) -> bool {
        (self.from..self.to).contains(&start)
    }

    /// How long it is.
    pub(super) fn length(&self) -> Duration {
        Duration::from_millis(self.to - self.from)
    }

    /// The numbers of the partitions that have spans of it.
    pub(super) fn blocks(&self) -> Vec<u64> {
        let Width { block, blocks, .. } = self.width;
        let first = self.from / block;
        let last = self.to.saturating_sub(1) / block;
        (first..=last).take(*blocks as usize).map(|number| number % blocks).collect()
    }
}

fn moment(name: &str, text: &str) -> Result<Timestamp, String> {
    let read = match text.parse::<u64>() {
        Ok(millis) => Some(millis),
        Err(_) => text.parse::<Moment>().ok().and_then(|at| at.as_millisecond().try_into().ok()),
    };
    // Up to the year 5138; what is beyond is a mistake, and would not be told as one.
    read.filter(|millis| *millis < 100_000_000_000_000).map(Timestamp).ok_or_else(|| {
        let form = "give a time of RFC 3339 as `2026-11-27T12:00:00Z`, or milliseconds since 1970";
        format!("`{name}={text}` is no time; {form}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_123_456);

    fn read(from: &str, to: Option<&str>) -> Result<Period, String> {
        Period::read(None, Some(from), to, NOW)
    }

    #[test]
    fn periods_are_put_together_from_fitting_spans() {
        for (name, width, points) in [
            ("1m", &SLICE, 13),
            ("5m", &SLICE, 61),
            ("1h", &MINUTE, 61),
            ("6h", &QUARTER, 25),
            ("24h", &QUARTER, 97),
            ("7d", &QUARTER, 169),
        ] {
            let period = Period::read(Some(name), None, None, NOW).unwrap();
            assert_eq!((period.name, period.width), (name, width));
            assert!(period.has(width.start(NOW)) && period.length() >= Duration::from_secs(60));
            assert_eq!((period.to - 1) / period.point - period.from / period.point + 1, points);
        }
        assert_eq!(Period::read(None, None, None, NOW).unwrap().name, "1h");
        let ago = |millis: u64| (NOW.0 - millis).to_string();
        for (from, to, width) in [
            (ago(2 * MINUTE_MS), None, &SLICE),
            (ago(HOUR), None, &MINUTE),
            (ago(3 * HOUR), Some(ago(2 * HOUR)), &QUARTER),
            (ago(6 * DAY), None, &QUARTER),
        ] {
            let period = read(&from, to.as_deref()).unwrap();
            assert_eq!(period.width, width, "{from}");
            assert!(period.from <= from.parse().unwrap());
        }
        let day = read("2027-01-14T00:00:00Z", Some("2027-01-14T12:00:00+01:00")).unwrap();
        assert_eq!(day.length(), Duration::from_secs(11 * 3600));
    }

    #[test]
    fn every_span_of_a_period_is_in_one_of_its_partitions() {
        for name in NAMED.map(|named| named.0) {
            let period = Period::named(name, NOW).unwrap();
            let mut start = period.from;
            while start < period.to {
                let block = period.width.block_of(start);
                assert!(period.blocks().contains(&block), "{name}");
                start += period.width.millis;
            }
        }
        // What is kept and what is new are in different partitions.
        for width in WIDTHS {
            assert!(width.blocks * width.block > width.reach + width.block, "{}", width.name);
        }
    }

    #[test]
    fn nonsense_is_told_apart() {
        for (range, from, to, expected) in [
            (Some("2h"), None, None, "`2h` is not a range"),
            (Some("1h"), Some("1"), None, "give either"),
            (None, None, Some("1"), "`to` goes with `from`"),
            (None, Some("yesterday"), None, "`from=yesterday` is no time"),
            (None, Some("-5"), None, "is no time"),
            (None, Some("99999999999999999"), None, "is no time"),
            (None, Some("1800000000000"), Some("1800000000000"), "must lie before"),
            (None, Some("1800000000000"), Some("2027-01-15"), "`to=2027-01-15` is no time"),
            (None, Some("1900000000000"), Some("1900000000001"), "in the future"),
            (None, Some("1500000000000"), None, "more than 7 days back"),
        ] {
            let refused = Period::read(range, from, to, NOW).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
