//! Who may do something with the channels of a namespace: a rule of its configuration, or a
//! capability of the caller's token.

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::fmt;
use types::{Caller, Pillar, PrincipalKind, Role, pattern};

/// Who may: everybody of the tenant (`true`), nobody (`false`), or those of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    /// No client.
    Nobody,
    /// Every client of the tenant.
    Everybody,
    /// Some.
    Those(Those),
}

/// Callers with one of the roles, of one of the kinds or in one of the pillars, in channels of one
/// of these names; a list that is left out excludes nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Those {
    /// Roles that the caller's credential may grant.
    pub roles: Vec<Role>,
    /// What the caller may be.
    pub kinds: Vec<PrincipalKind>,
    /// What the caller's session works in, or his token names.
    pub pillars: Vec<Pillar>,
    /// Names: `*` stands for characters other than `:`, `{user}` for the caller's own name.
    pub channels: Vec<String>,
}

impl Allow {
    /// Whether `caller` may, in the channel of this name.
    #[must_use]
    pub fn allows(&self, caller: &Caller, channel: &str) -> bool {
        match self {
            Self::Nobody => false,
            Self::Everybody => true,
            Self::Those(those) => those.include(caller, channel),
        }
    }
}

impl Those {
    fn include(&self, caller: &Caller, channel: &str) -> bool {
        let anybody = self.roles.is_empty() && self.kinds.is_empty() && self.pillars.is_empty();
        let one_of_them = self.roles.iter().any(|role| caller.has_role(role.as_str()))
            || self.kinds.contains(&caller.principal.kind)
            || caller.works_in_one_of(&self.pillars);
        let own = caller.principal.id.as_str();
        let named = |pattern: &String| {
            // Taken apart first: a caller's name may hold a `*`.
            let parts: Vec<String> =
                pattern.split('*').map(|part| part.replace("{user}", own)).collect();
            pattern::fits(&parts, channel, |between| !between.contains(':'))
        };
        (anybody || one_of_them) && (self.channels.is_empty() || self.channels.iter().any(named))
    }
}

impl Serialize for Allow {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nobody => s.serialize_bool(false),
            Self::Everybody => s.serialize_bool(true),
            Self::Those(those) => those.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for Allow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Allow;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or a table of `roles`, `kinds`, `pillars` and `channels`")
            }

            fn visit_bool<E>(self, everybody: bool) -> Result<Allow, E> {
                Ok(if everybody { Allow::Everybody } else { Allow::Nobody })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Allow, A::Error> {
                Those::deserialize(MapAccessDeserializer::new(map)).map(Allow::Those)
            }
        }
        deserializer.deserialize_any(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{CredentialKind, Pillars, Principal, PrincipalId, TenantId};

    fn caller(user: &str, roles: &[&str]) -> Caller {
        let id = PrincipalId::new(user).unwrap();
        Caller {
            roles: roles.iter().map(|role| Role::new(role).unwrap()).collect(),
            ..Caller::new(
                TenantId::new("acme").unwrap(),
                Principal { kind: PrincipalKind::User, id },
                CredentialKind::Jwt,
            )
        }
    }

    #[test]
    fn a_rule_names_roles_kinds_and_channels() {
        let read = |text: &str| toml::from_str::<Holds>(text).unwrap().who;
        #[derive(Deserialize)]
        struct Holds {
            who: Allow,
        }
        let (ann, editor) = (caller("ann", &[]), caller("bob", &["editor"]));
        assert!(read("who = true").allows(&ann, "room:1"));
        assert!(!read("who = false").allows(&editor, "room:1"));
        let editors = read("who = { roles = [\"editor\"] }");
        assert!(editors.allows(&editor, "room:1") && !editors.allows(&ann, "room:1"));
        let users = read("who = { roles = [\"admin\"], kinds = [\"user\"] }");
        assert!(users.allows(&ann, "room:1"));
        let sales = Pillars::new([Pillar::new("sales").unwrap()]).unwrap();
        let cat = Caller { pillars: sales, ..ann.clone() };
        let in_sales = read("who = { roles = [\"editor\"], pillars = [\"sales\", \"ops\"] }");
        assert!(in_sales.allows(&cat, "room:1") && in_sales.allows(&editor, "room:1"));
        assert!(!in_sales.allows(&ann, "room:1"));
        assert!(!read("who = { pillars = [\"ops\"] }").allows(&cat, "room:1"));
        let own = read("who = { channels = [\"room:{user}:*\", \"hall\", \"desk:*-*c:x\"] }");
        for (channel, expected) in [
            ("room:ann:1", true),
            ("room:ann:", true),
            ("room:ann:1:2", false),
            ("room:bob:1", false),
            ("room:ann", false),
            ("hall", true),
            ("halls", false),
            ("desk:a-b-c:x", true),
            ("desk:a:b-c:x", false),
            ("desk:a-b:c:x", false),
        ] {
            assert_eq!(own.allows(&ann, channel), expected, "{channel}");
        }
        // A name stands for itself, whatever is in it.
        assert!(!own.allows(&caller("*", &[]), "room:bob:1"));
        assert!(own.allows(&caller("{user}", &[]), "room:{user}:1"));
        let error = toml::from_str::<Holds>("who = 1").map(|holds| holds.who).unwrap_err();
        assert!(error.to_string().contains("a table of `roles`"), "{error}");
        assert!(toml::from_str::<Holds>("who = { role = [] }").is_err());
    }
}
