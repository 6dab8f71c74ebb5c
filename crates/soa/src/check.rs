//! Asks instances whether they are fit.

mod h2;

use crate::{
    config::{Config, ConfigError, HealthConfig, Protocol},
    found::Origin,
    instance::{Condition, Instance},
    service::{Service, Services},
    tls::{self, ServiceTls},
};
use clock::SharedClock;
use http::{Method, StatusCode};
use http1::Responses;
use parking_lot::Mutex;
use std::{collections::HashMap, future::poll_fn, io, sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt, task::JoinSet};

/// The checks of all services, until dropped: from then on none of them decides.
#[derive(Debug)]
pub struct Checks {
    _tasks: JoinSet<()>,
    deciding: Deciding,
}

/// Whether checks still decide. Those that are under way on other threads end later than they are
/// told to, and must not undo what those that follow have decided.
type Deciding = Arc<Mutex<bool>>;

impl Drop for Checks {
    fn drop(&mut self) {
        *self.deciding.lock() = false;
    }
}

impl Checks {
    /// Checks every instance of the services that ask for it, on the current runtime.
    #[must_use]
    pub fn start(services: &Services, clock: &SharedClock) -> Self {
        let (mut tasks, deciding) = (JoinSet::new(), Arc::new(Mutex::new(true)));
        for service in services.iter() {
            let Some(health) = &service.config().health else {
                // It may have been checked before a reload.
                let elapsed = clock.elapsed();
                service.instances(|instance, _, _| instance.set_fit(true, elapsed));
                continue;
            };
            let deciding = Arc::clone(&deciding);
            tasks.spawn(check_all(Arc::clone(service), health.clone(), clock.clone(), deciding));
        }
        Self { _tasks: tasks, deciding }
    }
}

/// Checks every instance of a service, those that come, and those that leave no longer.
async fn check_all(
    service: Arc<Service>,
    health: HealthConfig,
    clock: SharedClock,
    deciding: Deciding,
) {
    let (mut checks, mut running) = (JoinSet::new(), HashMap::new());
    loop {
        let mut left = std::mem::take(&mut running);
        service.instances(|instance, _, origin| {
            let in_row = match origin {
                Origin::Config => InRow::default(),
                Origin::Dns | Origin::Registered(_) => InRow::almost_fit(&health),
            };
            let check = left.remove(&instance.id).unwrap_or_else(|| {
                let check = Check::of(&service, instance, &health, &clock);
                checks.spawn(check.run(in_row, Arc::clone(&deciding)))
            });
            running.insert(instance.id, check);
        });
        for check in left.into_values() {
            check.abort();
        }
        while checks.try_join_next().is_some() {}
        match &service.changing {
            Some(changing) => changing.changed.notified().await,
            None => std::future::pending().await,
        }
    }
}

/// What asking an instance once came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The service.
    pub service: String,
    /// Host and port of the instance.
    pub instance: String,
    /// Why it would not be called; none if it would.
    pub problem: Option<String>,
}

/// Asks each instance of these services once, as their checks would; one that is not checked is
/// connected to. Takes as long as the slowest check may.
///
/// # Errors
/// [`ConfigError`] if the services cannot be called as configured.
pub async fn probe(config: &Config, clock: &SharedClock) -> Result<Vec<Probe>, ConfigError> {
    let services = Services::compile(config, None)?;
    let mut tasks = JoinSet::new();
    for service in services.iter() {
        let health = service.config().health.clone().unwrap_or_default();
        service.instances(|instance, _, _| {
            tasks.spawn(Check::of(service, instance, &health, clock).once());
        });
    }
    let mut probes = tasks.join_all().await;
    probes.sort_by(|a, b| (&a.service, &a.instance).cmp(&(&b.service, &b.instance)));
    Ok(probes)
}

struct Check {
    service: String,
    instance: Arc<Instance>,
    health: HealthConfig,
    protocol: Protocol,
    tls: Option<ServiceTls>,
    clock: SharedClock,
}

impl Check {
    fn of(
        service: &Service,
        instance: &Arc<Instance>,
        health: &HealthConfig,
        clock: &SharedClock,
    ) -> Self {
        Self {
            service: service.name().to_owned(),
            instance: Arc::clone(instance),
            health: health.clone(),
            protocol: service.config().protocol,
            tls: service.tls.clone(),
            clock: clock.clone(),
        }
    }

    async fn once(self) -> Probe {
        let problem = match tokio::time::timeout(self.health.timeout, self.ask()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        let instance = self.instance.authority().to_owned();
        Probe { service: self.service, instance, problem }
    }

    async fn run(self, mut in_row: InRow, deciding: Deciding) {
        loop {
            let answer = tokio::time::timeout(self.health.timeout, self.ask()).await;
            let fit = matches!(answer, Ok(Ok(())));
            let elapsed = self.clock.elapsed();
            let was = self.instance.condition(elapsed) != Condition::Unfit;
            if let Some(now) = in_row.next(fit, was, &self.health) {
                {
                    let deciding = deciding.lock();
                    if !*deciding {
                        return;
                    }
                    self.instance.set_fit(now, elapsed);
                }
                let (service, instance) = (&self.service, self.instance.authority());
                match answer {
                    _ if now => tracing::info!(service, instance, "it is fit again"),
                    Ok(Err(error)) => tracing::warn!(service, instance, %error, "it is unfit"),
                    Ok(Ok(())) | Err(_) => {
                        tracing::warn!(service, instance, "it is unfit: no answer in time");
                    }
                }
            }
            tokio::time::sleep(jittered(self.health.interval, &self.clock)).await;
        }
    }

    async fn ask(&self) -> io::Result<()> {
        let mut stream = tls::connect(&self.instance, self.tls.as_ref()).await?;
        if let Some(service) = self.health.grpc_service() {
            return h2::serves(stream, &self.instance, service).await;
        }
        let Some(path) = &self.health.path else { return Ok(()) };
        if self.protocol == Protocol::H2 {
            return h2::get(stream, &self.instance, path).await;
        }
        let host = self.instance.authority();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: crosstown-health\r\n\
             connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut responses = Responses::default();
        loop {
            let next = poll_fn(|cx| {
                http1::read(&mut stream, cx, |bytes| {
                    (!bytes.is_empty()).then(|| responses.next(bytes, &Method::GET))
                })
            });
            let next = next.await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let Some((head, _)) = next.map_err(io::Error::other)? else { continue };
            return judge(head.parts.status);
        }
    }
}

/// Whether an instance that answers so says that it is fit.
fn judge(status: StatusCode) -> io::Result<()> {
    match status.as_u16() {
        200..=399 => Ok(()),
        status => Err(io::Error::other(format!("it answered {status}"))),
    }
}

/// Nodes that start together shall not ask together for ever.
fn jittered(interval: Duration, clock: &SharedClock) -> Duration {
    let [random] = clock::random(&**clock);
    interval.mul_f64(0.9 + f64::from(random) / f64::from(u8::MAX) * 0.2)
}

/// Equal answers in a row.
#[derive(Debug, Clone, Copy, Default)]
struct InRow {
    fit: bool,
    count: u32,
}

impl InRow {
    /// Of an instance that was found: its first good answer is enough.
    fn almost_fit(health: &HealthConfig) -> Self {
        Self { fit: true, count: health.fit_after.saturating_sub(1) }
    }

    /// After one more answer: what the instance becomes, if it changes.
    fn next(&mut self, fit: bool, was: bool, health: &HealthConfig) -> Option<bool> {
        self.count = if self.fit == fit { self.count.saturating_add(1) } else { 1 };
        self.fit = fit;
        let needed = if fit { health.fit_after } else { health.unfit_after };
        (fit != was && self.count >= needed).then_some(fit)
    }
}

#[cfg(test)]
mod tests;
