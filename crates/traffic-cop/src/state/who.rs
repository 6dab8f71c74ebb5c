//! Who is meant by a rule.

use serde::Deserialize;
use types::{Caller, Pillar, PrincipalId, PrincipalKind, Role};

/// Everybody who reaches the document (`true`), nobody (`false`), or those of a table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Form")]
pub enum Who {
    /// No caller.
    Nobody,
    /// Every caller.
    Everybody,
    /// Some.
    Those(Those),
}

/// Callers who have one of the roles, are of one of the kinds, work in one of the pillars, or bear
/// one of the names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Those {
    /// Roles that the caller's credential grants.
    pub roles: Vec<Role>,
    /// What the caller is.
    pub kinds: Vec<PrincipalKind>,
    /// What the caller's session works in, or his token names.
    pub pillars: Vec<Pillar>,
    /// Names of callers, of whichever kind.
    pub principals: Vec<PrincipalId>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected true, false, or a table of `roles`, `kinds`, `pillars`, `principals`"
)]
enum Form {
    All(bool),
    Those(Those),
}

impl From<Form> for Who {
    fn from(form: Form) -> Self {
        match form {
            Form::All(true) => Self::Everybody,
            Form::All(false) => Self::Nobody,
            Form::Those(those) => Self::Those(those),
        }
    }
}

impl Who {
    /// Whether it is a table that names nobody.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::Those(Those::default())
    }

    /// Whether `caller` is one of them.
    #[must_use]
    pub fn includes(&self, caller: &Caller) -> bool {
        match self {
            Self::Nobody => false,
            Self::Everybody => true,
            Self::Those(those) => {
                those.roles.iter().any(|role| caller.has_role(role.as_str()))
                    || those.kinds.contains(&caller.principal.kind)
                    || caller.works_in_one_of(&those.pillars)
                    || those.principals.contains(&caller.principal.id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{CredentialKind, Pillars, Principal, TenantId};

    #[test]
    fn one_match_is_enough() {
        let caller = |kind, name: &str, roles: &[&str]| Caller {
            roles: roles.iter().map(|role| Role::new(role).unwrap()).collect(),
            pillars: Pillars::new(roles.iter().map(|_| Pillar::new("sales").unwrap())).unwrap(),
            ..Caller::new(
                TenantId::new("acme").unwrap(),
                Principal { kind, id: PrincipalId::new(name).unwrap() },
                CredentialKind::Jwt,
            )
        };
        let ann = caller(PrincipalKind::User, "ann", &["editor"]);
        let orders = caller(PrincipalKind::Service, "orders", &[]);
        let read = |text: &str| {
            #[derive(Deserialize)]
            struct Holds {
                who: Who,
            }
            toml::from_str::<Holds>(text).map(|holds| holds.who)
        };
        for (text, by_ann, by_orders) in [
            ("who = true", true, true),
            ("who = false", false, false),
            ("who = {}", false, false),
            ("who = { roles = [\"editor\"] }", true, false),
            ("who = { kinds = [\"service\"] }", false, true),
            ("who = { pillars = [\"sales\"] }", true, false),
            ("who = { pillars = [\"sales-eu\"] }", false, false),
            ("who = { roles = [\"editor\"], principals = [\"orders\"] }", true, true),
        ] {
            let who = read(text).unwrap();
            assert_eq!((who.includes(&ann), who.includes(&orders)), (by_ann, by_orders), "{text}");
        }
        for wrong in ["who = 1", "who = { role = [] }"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("a table of `roles`"), "{error}");
        }
    }
}
