//! What a connection has to do with its session: it is told of it, and ends with it.

use crate::connection::{
    Bound,
    task::{Due, Task},
};
use protocol::client::Disconnect;
use std::{rc::Rc, time::Duration};
use traffic_cop::session::What;
use types::{Caller, SessionId};

/// Between two looks at a session whose time seems to be over, at least.
const LOOK_MIN: Duration = Duration::from_secs(1);

impl Task {
    /// Notes that the connection is there.
    pub(super) fn opened(&self, caller: &Caller, session: SessionId) {
        let sessions = &self.sockets.node.parts.sessions;
        let address = sessions.shown_address(self.ip);
        let connection = self.connection.id.to_string();
        let what = What::SocketOpened { connection, address };
        sessions.trail().note(&caller.tenant, session, what);
    }

    /// Notes what the session does by this connection.
    pub(super) fn note(&self, what: impl FnOnce() -> What) {
        let trail = self.sockets.node.parts.sessions.trail();
        if !trail.is_on() {
            return;
        }
        if let Some(bound) = &*self.connection.bound.borrow() {
            trail.note(&bound.caller.tenant, bound.session, what());
        }
    }

    /// Pings after so long, or when the session's time is over: then it is looked at, too.
    pub(super) fn ping_after(&mut self, after: Duration) {
        let now = self.sockets.node.parts.clock.now();
        let expires =
            self.connection.bound.borrow().as_ref().and_then(|bound| bound.hold.expires());
        let left = expires.map(|at| at.since(now).max(LOOK_MIN));
        self.timer.next(Due::Ping, left.map_or(after, |left| after.min(left)));
    }

    /// Closes the connection if its session is over, as it seems to be: it may have been used on
    /// another node.
    pub(super) fn close_if_over(&self, bound: &Bound) {
        let parts = &self.sockets.node.parts;
        let (sessions, connection) = (parts.sessions.clone(), Rc::downgrade(&self.connection));
        let (control, bound) = (parts.control.clone(), bound.clone());
        tokio::task::spawn_local(async move {
            let (tenant, session) = (bound.caller.tenant.clone(), bound.session);
            let hold = bound.hold.clone();
            let looking = async move {
                match sessions.get(&tenant, session).await {
                    Ok(Some(read)) => {
                        sessions.note(&hold, &read);
                        None
                    }
                    Ok(None) => Some(sessions.parting(&tenant, session).await),
                    // What cannot be told now is looked at again.
                    Err(_) => None,
                }
            };
            if let Ok(Some(why)) = control.spawn(looking).await
                && let Some(connection) = connection.upgrade()
            {
                connection.close_for(Disconnect::Expired, &why);
            }
        });
    }
}
