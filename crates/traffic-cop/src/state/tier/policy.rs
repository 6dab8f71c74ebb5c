//! Which tier suits a document: a function of what was observed.

use crate::state::tier::Tier;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::{fmt, time::Duration};

/// No document is more complex.
const COMPLEXITY_MAX: f64 = 100.0;
/// No document is more important.
pub const IMPORTANCE_MAX: u8 = 10;

/// When documents change their tier by themselves. Read from the table `[state.promotion]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Promotion {
    /// Whether they do. Else they move only when somebody asks for it.
    pub enabled: bool,
    /// Whether documents of stores that nodes share may move at all. Then each read and write of
    /// a document looks up where it is, which costs one to three more calls of the store. All
    /// nodes that share the stores have to agree.
    pub shared: bool,
    /// How often a node looks at the documents that it has served, 1s to 1h.
    #[serde(with = "types::duration")]
    pub every: Duration,
    /// Bytes of documents and their histories that a node keeps live, at most. Whatever would be
    /// more does not become live; the largest that have grown beyond it become durable again.
    pub live_bytes_max: u64,
    /// By which measure.
    pub policy: Policy,
}

impl Default for Promotion {
    fn default() -> Self {
        let every = Duration::from_secs(30);
        let live_bytes_max = 64 * 1024 * 1024;
        let policy = Policy::default();
        Self { enabled: false, shared: false, every, live_bytes_max, policy }
    }
}

impl Promotion {
    /// Refuses what cannot be meant.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !(Duration::from_secs(1)..=Duration::from_secs(3_600)).contains(&self.every) {
            return Err("`state.promotion.every` is 1s to 1h".into());
        }
        self.policy.check().map_err(|why| format!("`state.promotion.policy`: {why}"))
    }
}

/// A measure for documents.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "TierPolicy")]
pub struct Policy {
    /// What is over any of these is durable.
    pub durable: Thresholds,
    /// Of the rest, what is over any of these is hot, and all else is live.
    pub hot: Thresholds,
    /// To become less durable, a document has to stay so far below what would bring it back:
    /// 0 to 0.9 of a threshold.
    pub margin: f64,
    /// How long it stays at least before it becomes less durable.
    #[serde(with = "types::duration")]
    #[schemars(with = "types::duration::Text")]
    pub rest: Duration,
    /// What has not changed for so long is durable.
    #[serde(with = "types::duration")]
    #[schemars(with = "types::duration::Text")]
    pub idle: Duration,
    /// Only what is read and written so often a minute becomes less durable.
    pub busy_per_minute: f64,
}

/// Bounds of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TierThresholds")]
pub struct Thresholds {
    /// See [`Observed::complexity`].
    pub complexity: f64,
    /// Of keys and values, as JSON.
    pub bytes: f64,
    /// Of the importance, 1 to 10.
    pub importance: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            durable: Thresholds { complexity: 10.0, bytes: 1_000.0, importance: 8.0 },
            hot: Thresholds { complexity: 5.0, bytes: 500.0, importance: 5.0 },
            margin: 0.2,
            rest: Duration::from_secs(300),
            idle: Duration::from_secs(900),
            busy_per_minute: 10.0,
        }
    }
}

impl Policy {
    /// Refuses what cannot be meant.
    pub(super) fn check(&self) -> Result<(), String> {
        if !(0.0..=0.9).contains(&self.margin) {
            return Err("`margin` is 0 to 0.9".into());
        }
        let pairs = [
            ("complexity", self.hot.complexity, self.durable.complexity),
            ("bytes", self.hot.bytes, self.durable.bytes),
            ("importance", self.hot.importance, self.durable.importance),
        ];
        for (name, hot, durable) in pairs {
            if !(hot >= 0.0 && durable >= hot) {
                return Err(format!("`durable.{name}` is at least `hot.{name}`, and that 0"));
            }
        }
        match self.busy_per_minute >= 0.0 {
            true => Ok(()),
            false => Err("`busy_per_minute` is at least 0".into()),
        }
    }
}

/// What is known of a document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ObservedDocument")]
pub struct Observed {
    /// Of keys and values, as JSON.
    pub bytes: u64,
    /// How many entries it has.
    pub entries: u64,
    /// How involved its values are: 2 for each key, 1.5 for each member of its object, 1.2 for
    /// each item of its list, 0.5 for any other value; 100 at most.
    pub complexity: f64,
    /// 1 to 10.
    pub importance: u8,
    /// By the calls that this node has made of its store.
    pub reads_per_minute: f64,
    /// Likewise.
    pub writes_per_minute: f64,
    /// Since its last change, in milliseconds; missing if it never changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unchanged_ms: Option<u64>,
    /// Since it came to its tier, in milliseconds; missing if it never moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub here_ms: Option<u64>,
}

/// What suits a document.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "TierDecision")]
pub struct Decision {
    /// The tier.
    pub tier: Tier,
    /// How much speaks for durable: 100 is its bounds, or more.
    pub score: u32,
    /// Why.
    pub reasons: Vec<String>,
    /// By what.
    pub observed: Observed,
}

/// How involved the values of a document are; see [`Observed::complexity`].
#[must_use]
pub(super) fn complexity<'a>(values: impl IntoIterator<Item = &'a Json>) -> f64 {
    let of = |value: &Json| match value {
        Json::Object(members) => 2.0 + 1.5 * count(members.len()),
        Json::Array(items) => 2.0 + 1.2 * count(items.len()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => 2.5,
    };
    values.into_iter().map(of).sum::<f64>().min(COMPLEXITY_MAX)
}

/// How important a document is if no rule says it: by whom it belongs to.
#[must_use]
pub(super) fn importance_of(document: &str) -> u8 {
    match document.split(':').next() {
        Some("tenant" | "service") => 6,
        Some("pillar") => 4,
        Some(_) | None => 3,
    }
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

fn number(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// The tier for what was observed of a document that is in `current`. A decision that is carried
/// out stands: with the same observed, the next one is the same.
#[must_use]
pub(super) fn decide(observed: &Observed, policy: &Policy, current: Tier) -> Decision {
    let mut reasons = Vec::new();
    let needed = need(observed, policy, 1.0, Some(&mut reasons));
    let decided = |tier, reasons| {
        let score = score(observed, policy);
        Decision { tier, score, reasons, observed: *observed }
    };
    let is_idle = |age: u64| u128::from(age) >= policy.idle.as_millis();
    if let Some(age) = observed.unchanged_ms.filter(|age| is_idle(*age)) {
        reasons.push(format!("it has not changed for {}s", age / 1_000));
        return decided(Tier::Durable, reasons);
    }
    if needed >= current {
        return decided(needed, reasons);
    }
    // What makes it less durable has to be plain.
    let rate = observed.reads_per_minute + observed.writes_per_minute;
    if rate < policy.busy_per_minute {
        reasons.push(format!("{rate:.1} reads and writes a minute are too few to move it"));
        return decided(current, reasons);
    }
    if observed.here_ms.is_some_and(|here| u128::from(here) < policy.rest.as_millis()) {
        reasons.push("it came here only lately".into());
        return decided(current, reasons);
    }
    let plainly = need(observed, policy, 1.0 - policy.margin, None).min(current);
    if plainly > needed {
        reasons.push(format!("it is within the margin of {}", plainly.as_str()));
    } else {
        reasons.push(format!("{rate:.1} reads and writes a minute"));
    }
    decided(plainly, reasons)
}

/// The tier by thresholds times `part`.
fn need(
    observed: &Observed,
    policy: &Policy,
    part: f64,
    mut reasons: Option<&mut Vec<String>>,
) -> Tier {
    for (tier, bounds) in [(Tier::Durable, &policy.durable), (Tier::Hot, &policy.hot)] {
        let over: Vec<String> = measures(observed, bounds)
            .into_iter()
            .filter(|measure| measure.value > measure.bound * part)
            .map(|measure| format!("{measure}: {}", tier.as_str()))
            .collect();
        if !over.is_empty() {
            if let Some(reasons) = &mut reasons {
                reasons.extend(over);
            }
            return tier;
        }
    }
    if let Some(reasons) = &mut reasons {
        reasons.push("it is small, simple and of little importance".into());
    }
    Tier::Live
}

struct Measure {
    name: &'static str,
    value: f64,
    bound: f64,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} is over {}", self.name, self.value, self.bound)
    }
}

fn measures(observed: &Observed, bounds: &Thresholds) -> [Measure; 3] {
    let of = |name, value, bound| Measure { name, value, bound };
    [
        of("complexity", observed.complexity, bounds.complexity),
        of("bytes", number(observed.bytes), bounds.bytes),
        of("importance", f64::from(observed.importance), bounds.importance),
    ]
}

fn score(observed: &Observed, policy: &Policy) -> u32 {
    let parts = measures(observed, &policy.durable);
    let highest = parts.iter().map(|part| part.value / part.bound.max(1.0)).fold(0.0, f64::max);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 0 to 100")]
    let score = (highest * 100.0).clamp(0.0, 100.0).round() as u32;
    score
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn small() -> Observed {
        Observed {
            bytes: 100,
            entries: 1,
            complexity: 2.5,
            importance: 3,
            reads_per_minute: 60.0,
            writes_per_minute: 60.0,
            unchanged_ms: Some(10),
            here_ms: None,
        }
    }

    #[test]
    fn the_table_decides() {
        use Tier::{Durable, Hot, Live};
        let policy = Policy::default();
        for (observed, current, expected) in [
            (small(), Durable, Live),
            (Observed { complexity: 10.5, ..small() }, Live, Durable),
            (Observed { bytes: 1_001, ..small() }, Live, Durable),
            (Observed { importance: 9, ..small() }, Live, Durable),
            (Observed { complexity: 5.5, ..small() }, Live, Hot),
            (Observed { bytes: 501, ..small() }, Durable, Hot),
            (Observed { importance: 6, ..small() }, Durable, Hot),
            // Within the margin it stays; it would come up only over the threshold.
            (Observed { bytes: 900, ..small() }, Durable, Durable),
            (Observed { bytes: 900, ..small() }, Live, Hot),
            (Observed { bytes: 450, ..small() }, Hot, Hot),
            (Observed { bytes: 450, ..small() }, Durable, Hot),
            (Observed { bytes: 450, ..small() }, Live, Live),
            // What nobody uses stays; what nobody changes is kept.
            (Observed { reads_per_minute: 1.0, writes_per_minute: 1.0, ..small() }, Hot, Hot),
            (Observed { unchanged_ms: Some(900_000), ..small() }, Live, Durable),
            (Observed { here_ms: Some(1_000), ..small() }, Hot, Hot),
            (Observed { here_ms: Some(300_000), ..small() }, Hot, Live),
        ] {
            let decision = decide(&observed, &policy, current);
            assert_eq!(decision.tier, expected, "{current:?}: {decision:?}");
            assert!(!decision.reasons.is_empty());
        }
        assert_eq!(decide(&small(), &policy, Live).score, 38);
        assert_eq!(decide(&Observed { bytes: 5_000, ..small() }, &policy, Live).score, 100);
    }

    #[test]
    fn a_decision_stands_once_it_is_carried_out() {
        let policy = Policy::default();
        let tiers = [Tier::Live, Tier::Hot, Tier::Durable];
        for step in 0..2_000_u32 {
            let observed = Observed {
                bytes: u64::from(step) % 1_200,
                complexity: f64::from(step * 7 % 120) / 10.0,
                importance: u8::try_from(step * 13 % 11).unwrap(),
                reads_per_minute: f64::from(step * 3 % 20),
                unchanged_ms: Some(u64::from(step * 17_389 % 1_000_000)),
                ..small()
            };
            for current in tiers {
                let first = decide(&observed, &policy, current).tier;
                assert_eq!(decide(&observed, &policy, first).tier, first, "{observed:?}");
            }
        }
    }

    #[test]
    fn complexity_is_that_of_the_table() {
        let check = |values: Json, expected: f64| {
            let values = values.as_object().unwrap().values().collect::<Vec<_>>();
            assert!((complexity(values) - expected).abs() < 1e-9);
        };
        check(json!({ "a": 1, "b": "x", "c": null }), 7.5);
        check(json!({ "a": { "x": 1, "y": 2 }, "b": [1, 2, 3] }), 5.0 + 5.6);
        check(json!({ "a": (0..1_000).collect::<Vec<_>>() }), 100.0);
    }

    #[test]
    fn a_policy_that_cannot_be_meant_is_refused() {
        let check = |text: &str| toml::from_str::<Promotion>(text).unwrap().check();
        assert_eq!(check(""), Ok(()));
        assert_eq!(check("enabled = true\n[policy]\nidle = \"1h\"\nmargin = 0.5"), Ok(()));
        for (text, why) in [
            ("every = \"0s\"", "every"),
            ("[policy]\nmargin = 1.0", "margin"),
            ("[policy]\nhot = { complexity = 20, bytes = 1, importance = 1 }", "complexity"),
        ] {
            assert!(check(text).unwrap_err().contains(why), "{text}");
        }
    }
}
