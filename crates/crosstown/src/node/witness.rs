//! What the gateway sees of sessions goes to their trails.

use gateway::{Witness, Witnessed};
use std::sync::Arc;
use tokio::runtime::Handle;
use traffic_cop::session::{Served, Sessions, What};
use types::Caller;

/// Tells the sessions what the gateway sees of them.
pub(super) struct ToSessions {
    pub(super) sessions: Arc<Sessions>,
    pub(super) control: Handle,
}

impl Witness for ToSessions {
    fn wants_requests(&self) -> bool {
        self.sessions.trail().is_on()
    }

    fn request(&self, request: Witnessed) {
        let Witnessed {
            tenant,
            session,
            method,
            target,
            route,
            service,
            instance,
            status,
            latency,
            trace,
        } = request;
        let path = target.path().to_owned();
        // The second part of a `traceparent` names the trace (W3C Trace Context, section 3.2.2).
        let trace = trace.to_str().ok().and_then(|text| text.split('-').nth(1));
        let trace = trace.unwrap_or_default().to_owned();
        let served = Served { method, path, route, service, instance, status, latency, trace };
        self.sessions.trail().note(&tenant, session, What::Request(Box::new(served)));
    }

    fn strayed(&self, caller: &Caller, service: &str, from: &str, to: &str) {
        let Some(session) = caller.session else { return };
        let (sessions, tenant) = (self.sessions.clone(), caller.tenant.clone());
        let [service, from, to] = [service, from, to].map(ToOwned::to_owned);
        self.control.spawn(async move {
            let rebound = sessions.rebind(&tenant, session, &service, &from, &to).await;
            if let Err(problem) = rebound {
                // The next request says so again.
                tracing::debug!(problem.detail, %session, "a session stays bound to what is gone");
            }
        });
    }
}
