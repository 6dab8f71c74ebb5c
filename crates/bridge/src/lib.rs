//! Realms that meet under rules.
//!
//! A **realm** is a set of services. What its services promise stands in OpenAPI documents
//! ([`Document`]): which operations there are, what a request to each has to look like, who may
//! call it. A **bridge** is a rule that lets one realm call operations of another ([`Policy`]).
//! Everything here is a function of values; the gateway calls it on a request's way.

mod audience;
mod config;
mod document;
mod merged;
mod policy;
mod realms;
mod violation;

pub use audience::{Audience, CALLS, document_for};
pub use config::{
    Always, BridgeConfig, Config, ConfigError, MemberConfig, RealmConfig, RegisteredSource,
    ResponseValidation, Source, UrlSource, Validation,
};
pub use document::{BodyRule, Checked, DOCUMENT_BYTES_MAX, Document, Operation, Sunset};
pub use merged::{Part, merged};
pub use policy::{Crossing, NO_BRIDGE, Policy, Verdict};
pub use realms::{Documents, Member, Realm, Realms, Wanted, route_name};
pub use violation::{Place, Violation, refusal};
