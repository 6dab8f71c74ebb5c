//! Identity and the other words that every part shares.
//!
//! **Tenant** → **principal** (user, agent or service) → **session** → **connections**.
//! A [`Caller`] is made once, at the edge, from the credential, and is a required argument
//! from there on. Every id is checked when it is made, so what holds one may rely on its form.

mod caller;
mod cidr;
pub mod duration;
mod id;
mod info;
pub mod pattern;
mod pillars;
mod session_id;
mod steering;
mod time;

pub use caller::{Caller, Capability, ChannelAction, CredentialKind, Principal, PrincipalKind};
pub use cidr::Cidr;
pub use id::{Binding, InvalidId, Pillar, PrincipalId, Role, TenantId};
pub use info::Info;
pub use pillars::{Bound, Pillars};
pub use session_id::{ConnectionId, SessionId};
pub use steering::{Priority, Steering};
pub use time::Timestamp;
