//! Services and their instances, shared by the cores of a node.

use crate::{
    balance::{Member, Rule, Turn},
    config::{
        Balance, Config, ConfigError, EjectionConfig, HostHeader, Protocol, Scheme, ServiceConfig,
    },
    found::{Change, Changing, Found, Origin, View},
    guard::{Guard, GuardReport},
    instance::{Condition, Instance},
    target::judge,
    tls::ServiceTls,
};
use http::{HeaderMap, HeaderValue, header, uri::PathAndQuery};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// How a call went, as far as the instance is concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    /// The head of an answer came, `latency` after the call began, if that says something.
    Answered { status: u16, latency: Option<Duration> },
    /// No head came, or none that is valid.
    Failed,
}

/// Every service that can be called, compiled from the configuration. Never changes.
#[derive(Debug, Clone, Default)]
pub struct Services(BTreeMap<String, Arc<Service>>);

impl Services {
    /// Compiles a configuration. Instances that `previous` knows keep their load, their
    /// connections and their condition; two services at one address have an instance each.
    ///
    /// # Errors
    /// [`ConfigError`] names the service and what to write instead.
    pub fn compile(config: &Config, previous: Option<&Self>) -> Result<Self, ConfigError> {
        let mut services = BTreeMap::new();
        for (name, config) in config {
            let known = previous.and_then(|services| services.get(name));
            let service = Service::compile(name, config, known.map(|service| &**service))?;
            services.insert(name.clone(), Arc::new(service));
        }
        Ok(Self(services))
    }

    /// The service of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Service>> {
        self.0.get(name)
    }

    /// Every service, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.0.values()
    }
}

/// What speaks for and against an instance.
#[derive(Debug, Clone)]
pub struct Score {
    /// The instance.
    pub instance: Arc<Instance>,
    /// Its share.
    pub weight: u32,
    /// What another call costs there; less is better.
    pub cost: f64,
    /// Whether it would be taken now; where chance has a say, with the number given.
    pub chosen: bool,
}

/// One service.
#[derive(Debug)]
pub struct Service {
    pub(crate) name: String,
    /// Those of the configuration.
    fixed: Box<[Member]>,
    /// All of them, if others come and go.
    pub(crate) changing: Option<Changing>,
    rule: Rule,
    pub(crate) config: ServiceConfig,
    pub(crate) tls: Option<ServiceTls>,
    turn: AtomicUsize,
    guard: Option<Arc<Guard>>,
}

impl Service {
    fn compile(
        name: &str,
        config: &ServiceConfig,
        known: Option<&Self>,
    ) -> Result<Self, ConfigError> {
        let service = || name.to_owned();
        let finds = config.dns.is_some() || config.registration.is_some();
        if config.instances.is_empty() && !finds {
            return Err(ConfigError::NoInstance { service: service() });
        }
        let health = config.health.as_ref();
        let path = health.and_then(|health| health.path.as_deref());
        if path.is_some_and(|path| !path.starts_with('/') || path.parse::<PathAndQuery>().is_err())
        {
            return Err(ConfigError::HealthPath { service: service() });
        }
        if let Some(why) = health.and_then(|health| health.check(config.protocol).err()) {
            return Err(ConfigError::Health { service: service(), why });
        }
        for (field, zero) in [
            ("connect_timeout", config.connect_timeout.is_zero()),
            ("response_timeout", config.response_timeout.is_zero()),
            ("connections_max", config.connections_max == 0),
            ("streams_max", config.streams_max == 0),
            ("ping_interval", config.ping_interval.is_zero()),
            ("weight", config.instances.iter().any(|instance| instance.weight == 0)),
            ("health.interval", health.is_some_and(|health| health.interval.is_zero())),
            ("health.timeout", health.is_some_and(|health| health.timeout.is_zero())),
        ] {
            if zero {
                return Err(ConfigError::Zero { service: service(), field });
            }
        }
        config.check_guard(name)?;
        if let Some(dns) = &config.dns {
            dns.check(name)?;
        }
        if let Some(registration) = &config.registration {
            registration.check(name)?;
        }
        // Connections that were made on other terms are not those of this service.
        let same_terms = known.filter(|known| {
            known.config.tls == config.tls && known.config.protocol == config.protocol
        });
        let fixed = config
            .instances
            .iter()
            .map(|given| {
                let instance = Instance::parse(&given.url).ok_or_else(|| ConfigError::Address {
                    service: service(),
                    instance: given.url.clone(),
                })?;
                let members = same_terms.map(Self::members);
                let known = members.as_deref().unwrap_or_default().iter();
                let known = known.map(|member| &member.instance);
                let known = known.filter(|known| known.is_same(&instance)).map(Arc::clone).next();
                let instance = known.unwrap_or_else(|| Arc::new(instance));
                Ok(Member { instance, weight: given.weight, origin: Origin::Config })
            })
            .collect::<Result<Box<[Member]>, ConfigError>>()?;
        let changing = finds.then(|| {
            let same_dns = known.is_some_and(|known| known.config.dns == config.dns);
            let stays = |found: &Found| match found.origin {
                Origin::Config => false,
                Origin::Dns => same_dns,
                // The registry tells next which of them are left; a configuration that is tried
                // is told nothing.
                Origin::Registered(_) => config
                    .registration
                    .as_ref()
                    .is_some_and(|terms| judge(found.address.ip(), &terms.reach()).is_ok()),
            };
            match same_terms.and_then(|known| known.changing.as_ref()) {
                Some(before) => Changing::after(&fixed, before, stays),
                None => Changing::new(&fixed),
            }
        });
        let is_tls = fixed.iter().any(|member| member.instance.tls_name.is_some())
            || config.dns.as_ref().is_some_and(|dns| dns.scheme == Scheme::Https);
        let tls = match (&config.tls, is_tls) {
            (None, false) => None,
            (tls, true) => {
                let tls = tls.clone().unwrap_or_default();
                Some(ServiceTls::open(name, &tls, config.protocol)?)
            }
            (Some(tls), false) if config.registration.is_some() => {
                Some(ServiceTls::open(name, tls, config.protocol)?)
            }
            (Some(_), false) => {
                let why = "it is for instances at `https://`, and there is none".into();
                return Err(ConfigError::Tls { service: service(), why });
            }
        };
        let rule = Rule { balance: config.balance, slow_start: config.slow_start };
        let turn = AtomicUsize::new(0);
        let guard = known.and_then(|known| known.guard.clone()).filter(|guard| guard.fits(config));
        let guard = guard.or_else(|| Guard::new(config).map(Arc::new));
        let (name, config) = (service(), config.clone());
        Ok(Self { name, fixed, changing, rule, config, tls, turn, guard })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is configured.
    #[must_use]
    pub fn config(&self) -> &ServiceConfig {
        &self.config
    }

    /// Whether it is called by HTTP/2.
    #[must_use]
    pub fn is_h2(&self) -> bool {
        self.config.protocol == Protocol::H2
    }

    /// Whether there is one instance, which nobody can stand in for.
    pub(crate) fn is_single(&self) -> bool {
        self.changing.is_none() && self.fixed.len() == 1
    }

    /// Its members at this time.
    pub(crate) fn members(&self) -> View<'_> {
        match &self.changing {
            None => View::Fixed(&self.fixed),
            Some(changing) => View::Now(changing.members()),
        }
    }

    /// What the DNS told last.
    pub(crate) fn dns(&self) -> Vec<Found> {
        self.changing.as_ref().map(Changing::dns).unwrap_or_default()
    }

    /// What the DNS tells is now this.
    pub(crate) fn set_dns(&self, found: Vec<Found>, elapsed: Duration) {
        let is_its = |origin: &Origin| matches!(origin, Origin::Dns);
        self.set_found(is_its, found, elapsed);
    }

    /// Why a lookup told nothing, or that it did.
    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        let Some(changing) = &self.changing else { return };
        let mut held = changing.trouble.lock();
        if *held != trouble {
            match &trouble {
                Some(why) => {
                    tracing::warn!(
                        service = self.name,
                        why,
                        "DNS tells no instances; those known stay"
                    );
                }
                None => tracing::info!(service = self.name, "DNS tells instances again"),
            }
            *held = trouble;
        }
    }

    /// Why the last lookup of its name told no instances, if it did not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.changing.as_ref()?.trouble.lock().clone()
    }

    /// Who is registered is now this.
    pub(crate) fn set_registered(&self, found: Vec<Found>, elapsed: Duration) {
        let is_its = |origin: &Origin| matches!(origin, Origin::Registered(_));
        self.set_found(is_its, found, elapsed);
    }

    fn set_found(&self, is_its: impl Fn(&Origin) -> bool, found: Vec<Found>, elapsed: Duration) {
        let Some(changing) = &self.changing else { return };
        let Change { came, left } = changing.set(&self.fixed, &self.config, is_its, found, elapsed);
        for (instances, what) in [(came, "an instance came"), (left, "an instance left")] {
            for instance in instances {
                let (service, instance) = (&self.name, instance.authority());
                tracing::info!(service, instance, "{what}");
            }
        }
    }

    pub(crate) fn guard(&self) -> Option<&Guard> {
        self.guard.as_deref()
    }

    /// What stands between callers and it, at this time of the node; none if nothing does.
    #[must_use]
    pub fn guarded(&self, elapsed: Duration) -> Option<GuardReport> {
        Some(self.guard()?.report(elapsed))
    }

    /// Calls `with` for each of its instances, with its share and where it is known from.
    pub fn instances(&self, mut with: impl FnMut(&Arc<Instance>, u32, &Origin)) {
        for member in &*self.members() {
            with(&member.instance, member.weight, &member.origin);
        }
    }

    /// The instance that a call would go to, with `key` and any number. The turn of nobody is used
    /// up.
    #[must_use]
    pub fn next(&self, key: Option<u64>, random: u64, elapsed: Duration) -> Option<Arc<Instance>> {
        let turn = Turn { elapsed, random, key, count: self.turn.load(Relaxed) };
        let members = self.members();
        let chosen = match &*members {
            [only] => (only.instance.condition(elapsed) != Condition::Unfit).then_some(only),
            members => self.rule.choose(members, &[], &turn),
        };
        chosen.map(|member| Arc::clone(&member.instance))
    }

    /// What the choice of an instance would rest on, as for [`Self::next`]: what another call
    /// costs at each, in units that only its rule knows, and which would be chosen now, for a
    /// caller that is `bound` to an instance or to none.
    #[must_use]
    pub fn scores(
        &self,
        bound: Option<&str>,
        key: Option<u64>,
        random: u64,
        elapsed: Duration,
    ) -> Vec<Score> {
        let turn = Turn { elapsed, random, key, count: self.turn.load(Relaxed) };
        let members = self.members();
        let own = bound.and_then(|bound| self.choose_bound(bound, &members, &[], &turn));
        let own = own.map(|member| member.instance.id);
        let chosen = own.or_else(|| Some(self.next(key, random, elapsed)?.id));
        let score = |member: &Member| Score {
            instance: Arc::clone(&member.instance),
            weight: member.weight,
            cost: self.rule.cost(member, &turn),
            chosen: chosen == Some(member.instance.id),
        };
        members.iter().map(score).collect()
    }

    /// Whether a caller that is bound to this instance, host and port, comes to it now.
    ///
    /// # Errors
    /// Why it does not.
    pub fn holds(&self, bound: &str, elapsed: Duration) -> Result<(), &'static str> {
        let members = self.members();
        let own = members.iter().find(|member| member.instance.authority() == bound);
        let Some(Member { instance, .. }) = own else {
            return Err("the service has no such instance");
        };
        match instance.condition(elapsed) {
            Condition::Fit if instance.is_open(elapsed) => Ok(()),
            Condition::Fit => Err("it refused a connection just now"),
            Condition::Ejected => Err("it failed several calls in a row"),
            Condition::Unfit => Err("it failed its checks"),
        }
    }

    /// As [`Self::choose`], for a caller that is bound to an instance: that one, as long as it is
    /// open.
    pub(crate) fn choose_for<'a>(
        &self,
        bound: Option<&str>,
        members: &'a [Member],
        tried: &[u64],
        turn: Turn,
    ) -> Option<&'a Arc<Instance>> {
        let own = bound.and_then(|bound| self.choose_bound(bound, members, tried, &turn));
        own.map(|member| &member.instance).or_else(|| self.choose(members, tried, turn))
    }

    fn choose_bound<'a>(
        &self,
        bound: &str,
        members: &'a [Member],
        tried: &[u64],
        turn: &Turn,
    ) -> Option<&'a Member> {
        let is_it = |member: &&Member| {
            member.instance.authority() == bound
                && !tried.contains(&member.instance.id)
                && member.instance.is_open(turn.elapsed)
        };
        members.iter().find(is_it).or_else(|| {
            // Until the caller is bound anew, all that it asks for goes to the same one.
            let rule = Rule { balance: Balance::ConsistentHash, ..self.rule };
            rule.choose(members, tried, turn)
        })
    }

    /// An instance of `members` other than those `tried`, by the service's rule.
    pub(crate) fn choose<'a>(
        &self,
        members: &'a [Member],
        tried: &[u64],
        mut turn: Turn,
    ) -> Option<&'a Arc<Instance>> {
        if members.is_empty() {
            return None;
        }
        if let [only] = members {
            // There is no other to spare it for; what an active check found holds.
            let may = !tried.contains(&only.instance.id)
                && only.instance.condition(turn.elapsed) != Condition::Unfit;
            return may.then_some(&only.instance);
        }
        if self.rule.balance == Balance::RoundRobin {
            // A further attempt is no turn of its own.
            let first = usize::from(tried.is_empty());
            turn.count = self.turn.fetch_add(first, Relaxed);
        }
        let chosen = self.rule.choose(members, tried, &turn);
        // One that refused a connection just now is better than none.
        let refused = || {
            members.iter().find(|member| {
                !tried.contains(&member.instance.id)
                    && member.instance.condition(turn.elapsed) == Condition::Fit
            })
        };
        chosen.or_else(refused).map(|member| &member.instance)
    }

    /// Notes how a call went. An instance that fails too often is left out, as long as enough
    /// others are not.
    pub(crate) fn note(&self, instance: &Instance, outcome: Outcome, elapsed: Duration) {
        let EjectionConfig { failures, time, percent_max } = self.config.ejection;
        match outcome {
            Outcome::Answered { status, latency } => {
                if let Some(latency) = latency {
                    instance.answered(latency, elapsed);
                }
                if status < 500 {
                    return instance.succeeded();
                }
            }
            Outcome::Failed => {}
        }
        if failures == 0 || instance.failed() < failures {
            return;
        }
        let left_out = |member: &&Member| member.instance.condition(elapsed) != Condition::Fit;
        let members = self.members();
        let out = members.iter().filter(left_out).count();
        if (out + 1) * 100 <= members.len() * percent_max as usize {
            instance.eject(time, elapsed);
            tracing::warn!(
                service = self.name,
                instance = instance.authority(),
                "left out after {failures} failures in a row"
            );
        }
    }

    /// The `Host` to set, if the request's own does not do.
    pub(crate) fn host<'a>(
        &self,
        instance: &'a Instance,
        headers: &HeaderMap,
    ) -> Option<&'a HeaderValue> {
        match self.config.host {
            // HTTP/1.0 clients may leave it out; HTTP/1.1 servers may not be spared it.
            HostHeader::Preserve => (!headers.contains_key(header::HOST)).then_some(&instance.host),
            HostHeader::Instance => Some(&instance.host),
        }
    }
}

#[cfg(test)]
mod tests;
