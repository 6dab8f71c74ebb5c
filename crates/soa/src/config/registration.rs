//! Instances that register themselves.

use crate::{config::ConfigError, target::Reach};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, time::Duration};
use types::{Caller, Cidr, PrincipalKind, Role, TenantId};

/// Who may register instances of a service, and where these may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrationConfig {
    /// Tenants of which services may register; at least one.
    pub tenants: Vec<TenantId>,
    /// Roles, one of which the registrar needs; at least one.
    pub roles: Vec<Role>,
    /// Networks that an instance has to be in, such as `10.0.0.0/8`. Default: anywhere that is
    /// public, and nowhere else. Addresses that hand out the machine's own credentials are
    /// refused in any case.
    #[serde(default)]
    pub networks: Vec<Cidr>,
    /// Whether instances may be on this machine. Default false: everything that trusts the
    /// machine could be reached by it.
    #[serde(default)]
    pub loopback: bool,
    /// How long a registration may last without a heartbeat, 1s to 1h. Default `5m`.
    #[serde(default = "ttl_max", with = "types::duration")]
    pub ttl_max: Duration,
    /// Instances at a time, 1 to 1000. Default 256.
    #[serde(default = "instances_max")]
    pub instances_max: usize,
    /// Instances of one tenant at a time. Default 64.
    #[serde(default = "tenant_instances_max")]
    pub tenant_instances_max: usize,
    /// The DNS server that is asked where a name is. Default: those of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<SocketAddr>,
}

fn ttl_max() -> Duration {
    Duration::from_secs(300)
}

fn instances_max() -> usize {
    256
}

fn tenant_instances_max() -> usize {
    64
}

impl RegistrationConfig {
    /// Whether `caller` may register instances.
    pub(crate) fn lets(&self, caller: &Caller) -> bool {
        caller.principal.kind == PrincipalKind::Service
            && self.tenants.contains(&caller.tenant)
            && self.roles.iter().any(|role| caller.has_role(role.as_str()))
    }

    /// Where instances may be.
    pub(crate) fn reach(&self) -> Reach<'_> {
        Reach { networks: &self.networks, loopback: self.loopback }
    }

    pub(crate) fn check(&self, service: &str) -> Result<(), ConfigError> {
        let ttl = Duration::from_secs(1)..=Duration::from_secs(3600);
        for (field, holds, range) in [
            ("registration.tenants", !self.tenants.is_empty(), "at least one"),
            ("registration.roles", !self.roles.is_empty(), "at least one"),
            ("registration.ttl_max", ttl.contains(&self.ttl_max), "1s to 1h"),
            ("registration.instances_max", (1..=1000).contains(&self.instances_max), "1 to 1000"),
            ("registration.tenant_instances_max", self.tenant_instances_max > 0, "more than zero"),
        ] {
            if !holds {
                return Err(ConfigError::Range { service: service.into(), field, range });
            }
        }
        Ok(())
    }
}
