//! Which realm may call what of which other.

use crate::config::BridgeConfig;
use protocol::{Code, Problem};
use types::pattern::fits;

/// What those are told whom no bridge lets pass.
pub const NO_BRIDGE: &str = "no-bridge";

/// A call from one realm to another.
#[derive(Debug, Clone, Copy)]
pub struct Crossing<'a> {
    /// Whoever calls.
    pub from: &'a str,
    /// Whom it calls.
    pub to: &'a str,
    /// The service there, as callers name it.
    pub service: &'a str,
    /// The operation, if the service has a document.
    pub operation: Option<&'a str>,
}

/// What the bridges say of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// The bridge that decided; none within a realm.
    pub rule: Option<&'a str>,
    /// Whether the call passes.
    pub allows: bool,
}

/// The bridges, in their order.
#[derive(Debug, Default)]
pub struct Policy(Vec<Bridge>);

/// A bridge, ready to decide.
#[derive(Debug)]
struct Bridge {
    config: BridgeConfig,
    services: Vec<Pattern>,
    operations: Vec<Pattern>,
}

/// The parts of a pattern, between which anything may stand.
type Pattern = Vec<String>;

impl Bridge {
    fn new(config: BridgeConfig) -> Self {
        let parts = |pattern: &String| pattern.split('*').map(str::to_owned).collect();
        let services = config.services.iter().map(parts).collect();
        let operations = config.operations.iter().map(parts).collect();
        Self { config, services, operations }
    }

    fn concerns(&self, call: &Crossing<'_>) -> bool {
        let named =
            |patterns: &[Pattern], name| patterns.iter().any(|parts| fits(parts, name, |_| true));
        self.config.from == call.from
            && self.config.to == call.to
            && named(&self.services, call.service)
            && match call.operation {
                Some(operation) => named(&self.operations, operation),
                None => self.config.operations.iter().any(|pattern| pattern == "*"),
            }
    }
}

impl Policy {
    pub(crate) fn new(bridges: Vec<BridgeConfig>) -> Self {
        Self(bridges.into_iter().map(Bridge::new).collect())
    }

    /// What the first bridge says that concerns a call; without one it does not pass. Within a
    /// realm everything does.
    #[must_use]
    pub fn verdict(&self, call: &Crossing<'_>) -> Verdict<'_> {
        if call.from == call.to {
            return Verdict { rule: None, allows: true };
        }
        match self.0.iter().find(|bridge| bridge.concerns(call)) {
            Some(Bridge { config, .. }) => {
                Verdict { rule: Some(&config.name), allows: config.allow }
            }
            None => Verdict { rule: Some(NO_BRIDGE), allows: false },
        }
    }

    /// Refuses a call that the bridges do not let pass.
    ///
    /// # Errors
    /// `forbidden` with the members `rule`, `from`, `to` and, if there is one, `operation`.
    pub fn check(&self, call: &Crossing<'_>) -> Result<(), Problem> {
        let Verdict { rule, allows } = self.verdict(call);
        if allows {
            return Ok(());
        }
        let rule = rule.unwrap_or(NO_BRIDGE);
        let Crossing { from, to, service, operation } = *call;
        let what = match operation {
            Some(operation) => format!("`{operation}` of `{service}`"),
            None => format!("`{service}`"),
        };
        let detail = if rule == NO_BRIDGE {
            format!("no bridge lets the realm `{from}` call {what} in `{to}`")
        } else {
            format!("the bridge `{rule}` does not let the realm `{from}` call {what} in `{to}`")
        };
        let problem = Problem::new(Code::Forbidden, detail)
            .member("rule", rule)
            .member("from", from)
            .member("to", to);
        Err(match operation {
            Some(operation) => problem.member("operation", operation),
            None => problem,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(name: &str, operations: &[&str], allow: bool) -> BridgeConfig {
        BridgeConfig {
            name: name.into(),
            from: "experience".into(),
            to: "solution".into(),
            services: vec!["plan*".into()],
            operations: operations.iter().map(|name| (*name).to_owned()).collect(),
            allow,
        }
    }

    fn verdict(
        policy: &Policy,
        (from, to): (&str, &str),
        service: &str,
        operation: Option<&str>,
    ) -> (Option<String>, bool) {
        let Verdict { rule, allows } = policy.verdict(&Crossing { from, to, service, operation });
        (rule.map(str::to_owned), allows)
    }

    #[test]
    fn the_first_bridge_that_concerns_a_call_decides() {
        let policy = Policy::new(vec![
            bridge("no-deletes", &["delete*"], false),
            bridge("plans", &["getPlan", "*Step"], true),
        ]);
        let there = ("experience", "solution");
        for (realms, service, operation, rule, allows) in [
            (there, "plans", Some("getPlan"), Some("plans"), true),
            (there, "plans", Some("addStep"), Some("plans"), true),
            (there, "plans", Some("deleteStep"), Some("no-deletes"), false),
            (there, "plans", Some("putPlan"), Some(NO_BRIDGE), false),
            (there, "bills", Some("getPlan"), Some(NO_BRIDGE), false),
            (there, "plans", None, Some(NO_BRIDGE), false),
            (("solution", "experience"), "plans", Some("getPlan"), Some(NO_BRIDGE), false),
            (("experience", "bank"), "plans", Some("getPlan"), Some(NO_BRIDGE), false),
            (("journey", "solution"), "plans", Some("getPlan"), Some(NO_BRIDGE), false),
            (("solution", "solution"), "plans", Some("deletePlan"), None, true),
        ] {
            let expected = (rule.map(str::to_owned), allows);
            assert_eq!(verdict(&policy, realms, service, operation), expected);
        }
        let all = Policy::new(vec![bridge("all", &["*"], true)]);
        assert_eq!(verdict(&all, there, "plans", None), (Some("all".into()), true));
    }

    #[test]
    fn a_refusal_names_the_rule() {
        let policy = Policy::new(vec![bridge("no-deletes", &["delete*"], false)]);
        let call = |operation| Crossing {
            from: "experience",
            to: "solution",
            service: "plans",
            operation: Some(operation),
        };
        let refused = policy.check(&call("deletePlan")).unwrap_err();
        assert_eq!(refused.code, Code::Forbidden);
        assert_eq!(refused.members["rule"], "no-deletes");
        assert_eq!(refused.members["operation"], "deletePlan");
        let refused = policy.check(&call("getPlan")).unwrap_err();
        assert_eq!(refused.members["rule"], NO_BRIDGE);
    }
}
