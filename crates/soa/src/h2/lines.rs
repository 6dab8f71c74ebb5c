//! The connections of one core by HTTP/2.

use super::line::{Line, Place};
use crate::{
    instance::{Instance, Slot},
    service::Service,
};
use ahash::AHashMap;
use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::sync::Mutex;

/// The connections to each instance.
#[derive(Default)]
pub(crate) struct Lines(RefCell<AHashMap<u64, Rc<Bundle>>>);

/// Those to one instance; the oldest is filled first, so that what is not needed can end.
#[derive(Default)]
struct Bundle {
    lines: RefCell<Vec<Rc<Line>>>,
    /// Held by who opens one: the others wait, and mostly find room on it.
    opening: Mutex<()>,
    failures: Cell<u64>,
    failure: RefCell<Option<(io::ErrorKind, String)>>,
}

impl Lines {
    /// A place for one more request; none if the instance has as many connections as it may
    /// have, and each is full.
    ///
    /// Cancel safe: a connection being opened is given up.
    ///
    /// # Errors
    /// What opening a connection met, for all who waited for it.
    pub(crate) async fn place(
        &self,
        instance: &Arc<Instance>,
        service: &Service,
    ) -> io::Result<Option<Place>> {
        let bundle = Rc::clone(self.0.borrow_mut().entry(instance.id).or_default());
        if let Some(place) = bundle.place() {
            return Ok(Some(place));
        }
        let failures = bundle.failures.get();
        let _turn = bundle.opening.lock().await;
        if let Some(place) = bundle.place() {
            return Ok(Some(place));
        }
        if bundle.failures.get() != failures {
            return Err(bundle.failure());
        }
        let Some(slot) = Slot::take(instance, service.config.connections_max) else {
            return Ok(None);
        };
        let line = Line::open(slot, service).await.map_err(|error| bundle.failed(error))?;
        let line = Rc::new(line);
        let place = Place::take(&line);
        bundle.lines.borrow_mut().push(line);
        Ok(place)
    }

    /// Lets go of connections that are over or that nobody used for long.
    pub(crate) fn sweep(&self, now: Duration) {
        self.0.borrow_mut().retain(|_, bundle| {
            let mut lines = bundle.lines.borrow_mut();
            lines.retain(|line| line.is_kept(now));
            !lines.is_empty() || Rc::strong_count(bundle) > 1
        });
    }

    /// Lets go of all connections; each ends with its last request.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

impl Bundle {
    fn place(&self) -> Option<Place> {
        self.lines.borrow().iter().find_map(Place::take)
    }

    fn failed(&self, error: io::Error) -> io::Error {
        self.failures.set(self.failures.get() + 1);
        *self.failure.borrow_mut() = Some((error.kind(), error.to_string()));
        error
    }

    fn failure(&self) -> io::Error {
        match &*self.failure.borrow() {
            Some((kind, text)) => io::Error::new(*kind, text.clone()),
            None => io::ErrorKind::ConnectionRefused.into(),
        }
    }
}
