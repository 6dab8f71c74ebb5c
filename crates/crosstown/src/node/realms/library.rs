//! Documents that come while the node runs: published to the store by whoever speaks for a realm,
//! and told to every node, or fetched again and again from where they are.

use crate::{
    config::Config,
    node::{
        realms::{
            stored::{self, BYTES_MAX},
            with_limits,
        },
        run::Node,
    },
};
use bridge::{BridgeConfig, DOCUMENT_BYTES_MAX, Document, Documents, Realms, Source, UrlSource};
use clock::SharedClock;
use futures_util::future::join_all;
use parking_lot::Mutex;
use protocol::{Code, Problem};
use soa::Reach;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};
use store::{Position, SharedStore, Watcher};
use tokio::sync::Notify;
use traffic_cop::limit::Rule;
use types::Caller;

/// Time for a document to come.
const FETCH: Duration = Duration::from_secs(10);
/// How long a start waits for documents.
const AT_START: Duration = Duration::from_secs(3);
/// When a document is looked for again that has not come.
const AGAIN: Duration = Duration::from_secs(5);
/// The pause after the store did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// How long nothing is fetched, if there is nothing to fetch.
const IDLE: Duration = Duration::from_secs(3600);

/// What came, and what of the configuration it meets.
pub(in crate::node) struct Library {
    store: SharedStore,
    clock: SharedClock,
    node: OnceLock<Weak<Node>>,
    come: Mutex<Documents>,
    in_force: Mutex<InForce>,
    attached: Notify,
    /// One change at a time.
    turn: tokio::sync::Mutex<()>,
}

/// What a configuration says of realms, and the limits beside those of documents.
#[derive(Default, Clone)]
struct InForce {
    realms: bridge::Config,
    bridges: Vec<BridgeConfig>,
    limits: Vec<Rule>,
}

impl InForce {
    fn sources(&self) -> impl Iterator<Item = (&String, &Source)> {
        let members = self.realms.values().flat_map(|realm| &realm.services);
        members.filter_map(|(service, member)| Some((service, member.openapi.as_ref()?)))
    }

    fn published(&self) -> BTreeSet<String> {
        let published = self.sources().filter(|(_, s)| matches!(s, Source::Registered(_)));
        published.map(|(service, _)| service.clone()).collect()
    }

    fn fetched(&self) -> BTreeMap<String, UrlSource> {
        let fetched = self.sources().filter_map(|(service, source)| match source {
            Source::Url(url) => Some((service.clone(), url.clone())),
            Source::File(_) | Source::Registered(_) => None,
        });
        fetched.collect()
    }
}

impl Library {
    pub(in crate::node) fn new(store: SharedStore, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            node: OnceLock::new(),
            come: Mutex::default(),
            in_force: Mutex::default(),
            attached: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// From now on this node's routes follow what comes.
    pub(in crate::node) fn serve(&self, node: &Arc<Node>) {
        let _ = self.node.set(Arc::downgrade(node));
    }

    /// What has come.
    pub(in crate::node) fn documents(&self) -> Documents {
        self.come.lock().clone()
    }

    fn has(&self, service: &str) -> bool {
        self.come.lock().contains_key(service)
    }

    /// Takes over what a configuration says, whose limits are those beside the documents'.
    pub(in crate::node) fn attach(&self, config: &Config) {
        let in_force = InForce {
            realms: config.realms.clone(),
            bridges: config.bridges.clone(),
            limits: config.limits.clone(),
        };
        self.come.lock().retain(|service, _| {
            in_force.sources().any(|(name, source)| name == service && !is_file(source))
        });
        *self.in_force.lock() = in_force;
        self.attached.notify_one();
    }

    /// Reads and fetches what there is, so that its routes are there from the start on.
    pub(in crate::node) async fn learn(&self, config: &Config) {
        self.attach(config);
        let in_force = self.in_force.lock().clone();
        for service in in_force.published() {
            match stored::read(&self.store, &service).await {
                Ok(document) => self.come.lock().extend(document.map(|d| (service, d))),
                Err(error) => tracing::warn!(%error, service, "its document cannot be seen yet"),
            }
        }
        let fetching = in_force.fetched().into_iter().map(|(service, source)| async move {
            let document = fetched(&service, &source).await?;
            self.come.lock().insert(service, document);
            Some(())
        });
        // Nobody waits for long: what has not come by then is looked for again soon.
        let _ = tokio::time::timeout(AT_START, join_all(fetching)).await;
    }

    /// Takes a document from whoever speaks for its realm. Once this returns it is durable, and
    /// this node serves by it.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `bad_request`, `body_too_large`, or those of the store.
    pub(super) async fn publish(
        &self,
        by: &Caller,
        realm: &str,
        service: &str,
        text: &[u8],
    ) -> Result<Arc<Document>, Problem> {
        self.may_publish(by, realm, service)?;
        if text.len() > BYTES_MAX {
            let detail = format!("a published document has at most {BYTES_MAX} bytes");
            return Err(Problem::new(Code::BodyTooLarge, detail));
        }
        let refused = |why: String| {
            Problem::new(Code::BadRequest, format!("the OpenAPI document of `{service}`: {why}"))
        };
        let document = Arc::new(Document::parse(text).map_err(refused)?);
        let _turn = self.turn.lock().await;
        let mut documents = self.documents();
        documents.insert(service.to_owned(), Arc::clone(&document));
        self.compiled(&documents).map_err(refused)?;
        let who = (by.tenant.clone(), by.principal.id.clone(), self.clock.now());
        stored::write(&self.store, service, who, text).await?;
        self.take_over(documents);
        Ok(document)
    }

    /// Forgets a document: the service is not called before there is another one.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub(super) async fn withdraw(
        &self,
        by: &Caller,
        realm: &str,
        service: &str,
    ) -> Result<(), Problem> {
        self.may_publish(by, realm, service)?;
        let _turn = self.turn.lock().await;
        if !stored::delete(&self.store, service).await? {
            return Err(Problem::new(Code::NotFound, "no document of this service is published"));
        }
        let mut documents = self.documents();
        documents.remove(service);
        self.take_over(documents);
        Ok(())
    }

    fn may_publish(&self, by: &Caller, realm: &str, service: &str) -> Result<(), Problem> {
        let node = self.node()?;
        let realms = node.gateway().realms();
        // Who does not speak for a realm is not told what it has.
        if realms.of_caller(by).is_none_or(|own| **own != *realm) {
            let detail = "only who speaks for a realm publishes documents of its services";
            return Err(Problem::new(Code::Forbidden, detail));
        }
        let member = realms.member(service).filter(|member| member.realm == realm);
        match member.and_then(|member| member.config.openapi.as_ref()) {
            Some(Source::Registered(_)) => Ok(()),
            Some(Source::File(_) | Source::Url(_)) | None => {
                let detail = format!("`{service}` is no service whose document is published");
                Err(Problem::new(Code::NotFound, detail))
            }
        }
    }

    /// The node, once it runs.
    pub(super) fn node(&self) -> Result<Arc<Node>, Problem> {
        let node = self.node.get().and_then(Weak::upgrade);
        node.ok_or_else(|| Problem::new(Code::Draining, "the node is starting or shutting down"))
    }

    /// The realms with these documents, and all limits.
    ///
    /// # Errors
    /// Why they cannot be served together.
    fn compiled(&self, come: &Documents) -> Result<(Arc<Realms>, Vec<Rule>), String> {
        let node = self.node().map_err(|problem| problem.detail)?;
        let in_force = self.in_force.lock().clone();
        let mut documents = come.clone();
        // Those that are files stay as they were read.
        for member in node.gateway().realms().members() {
            if let (Some(document), Some(source)) = (&member.document, &member.config.openapi)
                && is_file(source)
            {
                documents.insert(member.service.clone(), Arc::clone(document));
            }
        }
        let realms = Realms::compile(&in_force.realms, &in_force.bridges, &documents);
        let realms = Arc::new(realms.map_err(|error| error.to_string())?);
        let limits = with_limits(&in_force.limits, &realms)?;
        node.gateway().check_realms(&realms).map_err(|error| error.to_string())?;
        Ok((realms, limits))
    }

    /// Serves by these documents; they are known to fit, or the ones before stay.
    fn take_over(&self, documents: Documents) {
        let Ok(node) = self.node() else { return };
        match self.compiled(&documents) {
            Ok((realms, limits)) => {
                *self.come.lock() = documents;
                node.renew_realms(realms, limits);
            }
            Err(why) => tracing::error!(why, "a document is not taken; those before stay"),
        }
    }

    /// Follows what is published on any node and what is to be fetched, until dropped.
    pub(in crate::node) async fn run(self: Arc<Self>) {
        let mut watcher = store::watch(self.store.clone());
        let mut followed = BTreeSet::new();
        let mut due: BTreeMap<String, (Duration, UrlSource)> = BTreeMap::new();
        loop {
            let now = self.clock.elapsed();
            let next = due.values().map(|(at, _)| *at).min();
            let pause = next.map_or(IDLE, |at| at.saturating_sub(now));
            tokio::select! {
                () = self.attached.notified() => {
                    let in_force = self.in_force.lock().clone();
                    follow(&mut watcher, &mut followed, in_force.published());
                    let fetched = in_force.fetched();
                    due.retain(|service, (_, source)| fetched.get(service) == Some(&*source));
                    for (service, source) in fetched {
                        let pause = if self.has(&service) { source.every } else { AGAIN };
                        due.entry(service).or_insert((now + pause, source));
                    }
                }
                partition = watcher.touched() => {
                    if let Err(error) = self.look(partition.id()).await {
                        tracing::warn!(%error, "published documents cannot be seen now");
                        tokio::time::sleep(PAUSE).await;
                        watcher.follow(partition, Position::ZERO);
                    }
                }
                () = tokio::time::sleep(pause) => {
                    let now = self.clock.elapsed();
                    for (service, (at, source)) in due.iter_mut().filter(|(_, (at, _))| *at <= now) {
                        let document = fetched(service, source).await;
                        *at = now + if document.is_some() { source.every } else { AGAIN };
                        if document.is_some() {
                            let _turn = self.turn.lock().await;
                            self.put(service, document);
                        }
                    }
                }
            }
        }
    }

    /// Learns what of a service was published.
    async fn look(&self, service: &str) -> Result<(), store::Error> {
        let _turn = self.turn.lock().await;
        let document = stored::read(&self.store, service).await?;
        self.put(service, document);
        Ok(())
    }

    fn put(&self, service: &str, document: Option<Arc<Document>>) {
        let mut documents = self.documents();
        let known = documents.get(service).map(|known| known.json());
        if known == document.as_ref().map(|document| document.json()) {
            return;
        }
        match document {
            Some(document) => documents.insert(service.to_owned(), document),
            None => documents.remove(service),
        };
        self.take_over(documents);
    }
}

fn is_file(source: &Source) -> bool {
    matches!(source, Source::File(_))
}

fn follow(watcher: &mut Watcher, followed: &mut BTreeSet<String>, wanted: BTreeSet<String>) {
    for service in followed.difference(&wanted) {
        if let Ok(partition) = stored::partition(service) {
            watcher.leave(&partition);
        }
    }
    for service in wanted.difference(followed) {
        if let Ok(partition) = stored::partition(service) {
            watcher.follow(partition, Position::ZERO);
        }
    }
    *followed = wanted;
}

/// A document from where it is; none if it does not come, or cannot be kept, which is told.
async fn fetched(service: &str, source: &UrlSource) -> Option<Arc<Document>> {
    let reach = Reach { networks: &source.networks, loopback: source.loopback };
    let text = soa::fetch(&source.url, &reach, DOCUMENT_BYTES_MAX, FETCH).await;
    match text.and_then(|text| Document::parse(&text)) {
        Ok(document) => Some(Arc::new(document)),
        Err(why) => {
            tracing::warn!(service, url = source.url, why, "a document does not come");
            None
        }
    }
}
