//! Periods of a calendar: where a day, a week or a month begins and ends in a time zone.

use jiff::{Timestamp as Instant, ToSpan, ZonedDateTime, civil::Date, tz::TimeZone};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc, time::Duration};
use types::Timestamp;

/// A unit of a calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Every {
    /// From minute 0 on.
    Hour,
    /// From midnight on, or what comes first after it.
    Day,
    /// From Monday on (ISO 8601).
    Week,
    /// From the first on.
    Month,
}

impl Every {
    /// The unit of that name, if it is one.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Hour, Self::Day, Self::Week, Self::Month].into_iter().find(|it| it.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

/// The periods of a unit in a time zone. Written as `month Europe/Berlin`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Calendar {
    every: Every,
    /// A name of the IANA time zone database that was found in it.
    zone: Arc<str>,
}

/// A period: from its beginning up to its end, which belongs to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) begins: Timestamp,
    pub(super) ends: Timestamp,
}

impl Period {
    /// Beyond the years that calendars have.
    const ENDLESS: Self = Self { begins: Timestamp(0), ends: Timestamp(u64::MAX) };

    pub(super) fn length(&self) -> Duration {
        self.ends.since(self.begins)
    }
}

impl Calendar {
    /// The periods of `every` in the time zone of that IANA name.
    ///
    /// # Errors
    /// A sentence that says what is accepted.
    pub fn new(every: Every, zone: &str) -> Result<Self, String> {
        match TimeZone::get(zone) {
            Ok(known) => Ok(Self { every, zone: known.iana_name().unwrap_or(zone).into() }),
            Err(_) => Err(format!(
                "`{zone}` is not a time zone; write for instance `UTC` or `Europe/Berlin`"
            )),
        }
    }

    /// The period that `at` lies in.
    pub(super) fn period(&self, at: Timestamp) -> Period {
        self.known(at).unwrap_or(Period::ENDLESS)
    }

    /// `None` beyond the years that calendars have.
    fn known(&self, at: Timestamp) -> Option<Period> {
        let zone = TimeZone::get(&self.zone).ok()?;
        let at = Instant::from_millisecond(i64::try_from(at.0).ok()?).ok()?;
        let local = at.to_zoned_datetime(zone.clone());
        let midnight = |date: Date| date.to_zoned_datetime(zone.clone()).ok();
        let today = local.date();
        let (begins, ends) = match self.every {
            Every::Hour => {
                let past = i64::from(local.minute()) * 60 + i64::from(local.second());
                let begins = at.as_second() - past;
                return Some(Period { begins: seconds(begins)?, ends: seconds(begins + 3_600)? });
            }
            Every::Day => (today, today.tomorrow().ok()?),
            Every::Week => {
                let since = today.weekday().to_monday_zero_offset();
                let monday = today.checked_sub(since.days()).ok()?;
                (monday, monday.checked_add(7.days()).ok()?)
            }
            Every::Month => {
                let first = today.first_of_month();
                (first, first.checked_add(1.month()).ok()?)
            }
        };
        let edge = |date| midnight(date).as_ref().and_then(moment);
        Some(Period { begins: edge(begins)?, ends: edge(ends)? })
    }
}

fn moment(zoned: &ZonedDateTime) -> Option<Timestamp> {
    u64::try_from(zoned.timestamp().as_millisecond()).ok().map(Timestamp)
}

fn seconds(since_1970: i64) -> Option<Timestamp> {
    u64::try_from(since_1970).ok().map(|seconds| Timestamp(seconds * 1_000))
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.every.name(), self.zone)
    }
}

impl FromStr for Calendar {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read =
            text.split_once(' ').and_then(|(every, zone)| Some((Every::named(every)?, zone)));
        let (every, zone) = read.ok_or_else(|| format!("`{text}` is not a calendar"))?;
        Self::new(every, zone)
    }
}

impl From<Calendar> for String {
    fn from(calendar: Calendar) -> Self {
        calendar.to_string()
    }
}

impl TryFrom<String> for Calendar {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A calendar that remembers the period it told last.
#[derive(Debug)]
pub(super) struct Turning {
    calendar: Calendar,
    last: Mutex<Period>,
}

impl Turning {
    pub(super) fn new(calendar: Calendar) -> Self {
        let nothing = Period { begins: Timestamp(0), ends: Timestamp(0) };
        Self { calendar, last: Mutex::new(nothing) }
    }

    pub(super) fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    /// The period that `at` lies in.
    pub(super) fn period(&self, at: Timestamp) -> Period {
        let mut last = self.last.lock();
        if !(last.begins..last.ends).contains(&at) {
            *last = self.calendar.period(at);
        }
        *last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let instant: Instant = text.parse().unwrap();
        Timestamp(u64::try_from(instant.as_millisecond()).unwrap())
    }

    fn check(calendar: &str, now: &str, begins: &str, ends: &str) {
        let turning = Turning::new(calendar.parse().unwrap());
        let expected = Period { begins: at(begins), ends: at(ends) };
        assert_eq!(turning.period(at(now)), expected, "{calendar} at {now}");
        assert_eq!(turning.period(at(begins)), expected, "its first moment");
        let last = Timestamp(expected.ends.0 - 1);
        assert_eq!(turning.period(last), expected, "its last moment");
        assert_eq!(turning.period(expected.ends).begins, expected.ends, "no gap");
    }

    #[test]
    fn a_period_begins_and_ends_where_the_calendar_of_its_zone_says() {
        let day = "day Europe/Berlin";
        check(day, "2026-07-01T21:59:59.999Z", "2026-06-30T22:00:00Z", "2026-07-01T22:00:00Z");
        // Days of 23 and of 25 hours.
        check(day, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        check(day, "2026-10-25T00:30:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        check("month UTC", "2028-02-29T23:59:59Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z");
        let month = "month America/New_York";
        check(month, "2027-01-01T04:59:59Z", "2026-12-01T05:00:00Z", "2027-01-01T05:00:00Z");
        check("week UTC", "2027-01-03T23:00:00Z", "2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z");
        let hour = "hour Asia/Kathmandu";
        check(hour, "2026-05-05T10:20:00Z", "2026-05-05T10:15:00Z", "2026-05-05T11:15:00Z");
        // No midnight: the day begins at one o'clock.
        let day = "day America/Asuncion";
        check(day, "2023-10-01T12:00:00Z", "2023-10-01T04:00:00Z", "2023-10-02T03:00:00Z");
    }

    #[test]
    fn what_is_no_calendar_is_refused() {
        for bad in ["", "day", "day ", "year UTC", "day Europe/Atlantis", "Day UTC"] {
            assert!(bad.parse::<Calendar>().is_err(), "{bad:?}");
        }
        let calendar: Calendar = serde_json::from_str("\"month UTC\"").unwrap();
        assert_eq!(serde_json::to_string(&calendar).unwrap(), "\"month UTC\"");
        assert_eq!(calendar.period(Timestamp(u64::MAX)), Period::ENDLESS);
    }
}
