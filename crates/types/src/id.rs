//! Names that come from outside: tenants, principals, roles.

use std::{fmt, sync::Arc};

/// A name that does not have the form of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} must be {rule}")]
pub struct InvalidId {
    /// What was to be named, for instance `tenant`.
    pub kind: &'static str,
    /// The form it must have.
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal, $allowed:expr, $rule:literal, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the form and takes the name.
            ///
            /// # Errors
            /// [`InvalidId`] when the name is empty, too long or has another character.
            pub fn new(name: &str) -> Result<Self, InvalidId> {
                let allowed: fn(u8) -> bool = $allowed;
                if name.is_empty() || name.len() > $max || !name.bytes().all(allowed) {
                    return Err(InvalidId { kind: $kind, rule: $rule });
                }
                Ok(Self(name.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(name: &str) -> Result<Self, InvalidId> {
                Self::new(name)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let name = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                Self::new(&name).map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

name!(
    /// Who owns data: the outermost boundary, part of every key.
    TenantId,
    "tenant",
    64,
    |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-',
    "1 to 64 characters of A-Z a-z 0-9 _ -",
    "^[A-Za-z0-9_-]{1,64}$"
);

name!(
    /// The name of a user, agent or service inside its tenant.
    PrincipalId,
    "principal",
    128,
    |b| b.is_ascii_graphic() && !matches!(b, b'/' | b'"' | b'\\' | b',' | b';'),
    "1 to 128 visible ASCII characters other than / \" \\ , ;",
    "^[!#-+\\-.0-:<-\\[\\]-~]{1,128}$"
);

name!(
    /// A role that a credential grants, for instance `admin`.
    Role,
    "role",
    64,
    |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'),
    "1 to 64 characters of A-Z a-z 0-9 _ - . :",
    "^[A-Za-z0-9_.:-]{1,64}$"
);

name!(
    /// A product area that sessions work in, for instance `insights`. None is built in.
    Pillar,
    "pillar",
    64,
    |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-',
    "1 to 64 characters of A-Z a-z 0-9 _ -",
    "^[A-Za-z0-9_-]{1,64}$"
);

name!(
    /// What of a pillar somebody works in, for instance a solution or a room.
    Binding,
    "binding",
    64,
    |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'),
    "1 to 64 characters of A-Z a-z 0-9 _ - . :",
    "^[A-Za-z0-9_.:-]{1,64}$"
);

impl TenantId {
    /// The tenant that the node itself uses; no credential can name it, as `.` is not allowed.
    #[must_use]
    pub fn system() -> Self {
        Self("system.crosstown".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_name_is_what_is_taken() {
        fn compare<T: schemars::JsonSchema + std::str::FromStr>(most: usize) {
            let schema = schemars::schema_for!(T);
            let pattern = schema.get("pattern").and_then(|pattern| pattern.as_str()).unwrap();
            let told = regex::Regex::new(pattern).unwrap();
            let one = (0..0x100_u32).filter_map(char::from_u32).map(String::from);
            for name in one.chain(["", "ab"].map(Into::into)) {
                assert_eq!(told.is_match(&name), name.parse::<T>().is_ok(), "{pattern}: {name:?}");
            }
            for length in [most, most + 1] {
                let name = "x".repeat(length);
                assert_eq!(told.is_match(&name), name.parse::<T>().is_ok(), "{pattern}: {length}");
            }
        }
        compare::<TenantId>(64);
        compare::<PrincipalId>(128);
        compare::<Role>(64);
        compare::<Pillar>(64);
        compare::<Binding>(64);
    }

    #[test]
    fn names_outside_their_alphabet_are_refused() {
        for bad in ["", "a b", "a/b", "ä", "system.crosstown", &"x".repeat(65)] {
            assert!(TenantId::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a b", "a/b", "a\n", "a\"b", &"x".repeat(129)] {
            assert!(PrincipalId::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(PrincipalId::new("ann@example.org").unwrap().as_str(), "ann@example.org");
    }
}
