//! `/crosstown/v1/realms`: the realms and services that a caller can reach, what they promise as
//! one OpenAPI document, and the documents that realms publish.

mod page;

use crate::{
    answer::{Answer, Refusal, json, json_with, no_content, refuse},
    request::{By, Wanted},
};
use async_trait::async_trait;
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use bridge::{Audience, Crossing, Member, Realms, document_for};
use http::{HeaderValue, StatusCode, header};
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json as object};
use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};
use types::{Caller, Timestamp};

/// A document that was taken.
#[derive(Debug, Clone, Serialize)]
pub struct Published {
    /// What the API calls itself.
    pub title: String,
    /// The document's version.
    pub version: String,
    /// How many operations it has.
    pub operations: usize,
}

/// A route from outside to the operations of a service.
#[derive(Debug, Clone, Serialize)]
pub struct Door {
    /// The service.
    pub service: String,
    /// What the paths of its operations begin with.
    pub prefix: String,
}

/// How an operation's document was broken.
#[derive(Debug, Clone, Serialize)]
pub struct BrokenView {
    /// The service.
    pub service: String,
    /// The operation.
    pub operation: String,
    /// `request` or `response`.
    pub by: &'static str,
    /// How often, since the node started.
    pub count: u64,
    /// What was wrong the last time.
    pub last: String,
    /// When that was, in milliseconds since 1970 UTC.
    pub at: Timestamp,
}

/// Where realms are looked at and documents are given.
#[async_trait]
pub trait RealmsView: Send + Sync {
    /// The realms in force.
    fn realms(&self) -> Arc<Realms>;

    /// The routes from outside to operations.
    fn doors(&self) -> Vec<Door>;

    /// How many instances a service has that are fit, and how many in all.
    fn instances(&self) -> BTreeMap<String, (usize, usize)>;

    /// How documents were broken.
    fn broken(&self) -> Vec<BrokenView>;

    /// Takes the document of a service from whoever speaks for its realm.
    async fn publish(
        &self,
        by: &Caller,
        realm: &str,
        service: &str,
        text: &[u8],
    ) -> Result<Published, Problem>;

    /// Forgets it.
    async fn withdraw(&self, by: &Caller, realm: &str, service: &str) -> Result<(), Problem>;
}

/// Where realms are looked at.
pub type See = Arc<dyn RealmsView>;

pub(crate) fn routes(see: See) -> Router {
    Router::new()
        .route("/realms", get(of_caller))
        .route("/realms/openapi", get(document_of_caller))
        .route("/realms/{realm}/services/{service}/openapi", put(publish).delete(withdraw))
        .with_state(see)
}

pub(crate) fn admin_routes(see: See) -> Router {
    Router::new()
        .route("/realms", get(all))
        .route("/realms/openapi", get(document_of_audience))
        .with_state(see)
}

/// A service, as whoever may call it sees it.
#[derive(Serialize)]
struct ServiceTold<'a> {
    /// What callers name it.
    name: &'a str,
    version: String,
    tags: &'a [String],
    preview: bool,
    /// The title of its document.
    title: Option<&'a str>,
    /// Its operations that may be called; none without a document.
    operations: Option<Vec<OperationTold<'a>>>,
    /// Whether its document has yet to come.
    waits_for_document: bool,
    /// Its instances that are fit, as this node sees them.
    instances_fit: usize,
    /// All of its instances.
    instances: usize,
}

#[derive(Serialize)]
struct OperationTold<'a> {
    id: &'a str,
    method: &'a str,
    path: &'a str,
    summary: Option<&'a str>,
    deprecated: bool,
}

/// The services of each realm, with what `from` may call of them; all of it for the operator.
fn listing<'a>(
    realms: &'a Realms,
    instances: &BTreeMap<String, (usize, usize)>,
    from: Option<&str>,
) -> BTreeMap<&'a str, Vec<ServiceTold<'a>>> {
    let mut told: BTreeMap<&str, Vec<ServiceTold<'_>>> =
        realms.iter().map(|realm| (realm.name(), Vec::new())).collect();
    let allows = |member: &Member, operation: Option<&str>| {
        let Member { realm, name, .. } = member;
        from.is_none_or(|from| {
            let call = Crossing { from, to: realm, service: name, operation };
            realms.policy().verdict(&call).allows
        })
    };
    for member in realms.members() {
        let operations = member.document.as_ref().map(|document| {
            let mine = document.operations().iter().filter(|o| allows(member, Some(o.id())));
            let told = mine.map(|operation| OperationTold {
                id: operation.id(),
                method: operation.method().as_str(),
                path: operation.path(),
                summary: operation.summary(),
                deprecated: operation.is_deprecated(),
            });
            told.collect::<Vec<_>>()
        });
        let visible = match &operations {
            Some(operations) => !operations.is_empty(),
            None => allows(member, None),
        };
        if let Some(of_realm) = told.get_mut(&*member.realm).filter(|_| visible) {
            of_realm.push(ServiceTold {
                name: &member.name,
                version: member.version.to_string(),
                tags: &member.config.tags,
                preview: member.config.preview,
                title: member.document.as_ref().map(|document| document.title()),
                operations,
                waits_for_document: member.waits_for_document(),
                instances_fit: instances.get(&member.service).map_or(0, |(fit, _)| *fit),
                instances: instances.get(&member.service).map_or(0, |(_, all)| *all),
            });
        }
    }
    for services in told.values_mut() {
        services.sort_by(|a, b| (a.name, &a.version).cmp(&(b.name, &b.version)));
    }
    told.retain(|_, services| from.is_none() || !services.is_empty());
    told
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Discovered {
    realm: Option<String>,
    service: Option<String>,
    version: Option<String>,
    tag: Option<String>,
}

/// The realm of the caller, and what it may call: of a realm, by a name, of a version, with a tag.
async fn of_caller(State(see): State<See>, by: By, Wanted(asked): Wanted<Discovered>) -> Answer {
    let realms = see.realms();
    let Some(own) = realms.of_caller(&by) else {
        return json(object!({ "realm": null, "realms": {} }));
    };
    let wanted = match &asked.version {
        None => None,
        Some(text) => match text.parse::<semver::VersionReq>() {
            Ok(wanted) => Some(wanted),
            Err(_) => return refuse(Code::BadRequest, format!("`{text}` is no version")),
        },
    };
    let mut told = listing(&realms, &see.instances(), Some(own));
    let fits = |service: &ServiceTold<'_>| {
        let version = || service.version.parse::<semver::Version>().ok();
        asked.service.as_ref().is_none_or(|name| name == service.name)
            && asked.tag.as_ref().is_none_or(|tag| service.tags.contains(tag))
            && wanted.as_ref().is_none_or(|w| version().is_some_and(|v| w.matches(&v)))
    };
    told.retain(|realm, services| {
        services.retain(fits);
        asked.realm.as_ref().is_none_or(|wanted| wanted == realm) && !services.is_empty()
    });
    json(object!({ "realm": own, "realms": told }))
}

async fn all(State(see): State<See>) -> Answer {
    let realms = see.realms();
    let told = listing(&realms, &see.instances(), None);
    json(object!({ "realms": told, "doors": see.doors(), "broken": see.broken() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    /// `json` or `html`.
    #[serde(default)]
    format: Format,
    /// For the operator: a realm; none: what is open to those from outside.
    audience: Option<String>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Html,
}

async fn document_of_caller(State(see): State<See>, by: By, Wanted(form): Wanted<Form>) -> Answer {
    let realms = see.realms();
    let own = realms.of_caller(&by).map(|realm| &**realm);
    if form.audience.is_some() && form.audience.as_deref() != own {
        return refuse(Code::Forbidden, "the document of another realm is for those of it");
    }
    document(&see, &realms, own, form.format)
}

async fn document_of_audience(State(see): State<See>, Wanted(form): Wanted<Form>) -> Answer {
    let realms = see.realms();
    let audience = form.audience.as_deref();
    if let Some(name) = audience.filter(|name| !realms.iter().any(|realm| realm.name() == *name)) {
        return refuse(Code::NotFound, format!("there is no realm `{name}`"));
    }
    document(&see, &realms, audience, form.format)
}

fn document(see: &See, realms: &Realms, realm: Option<&str>, format: Format) -> Answer {
    let doors = see.doors();
    let doors: Vec<(&str, &str)> =
        doors.iter().map(|door| (door.service.as_str(), door.prefix.as_str())).collect();
    let whole = document_for(realms, realm.map_or(Audience::Public, Audience::Realm), &doors);
    match format {
        Format::Json => json(whole),
        Format::Html => Ok(html(&whole)),
    }
}

/// A page that loads and runs nothing.
fn html(document: &Value) -> Response {
    let mut answer = page::of(document).into_response();
    let fields = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fields {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// Writes for Prometheus how documents were broken: as many lines as there are operations.
pub(crate) fn metrics(text: &mut String, broken: &[BrokenView]) {
    let name = "crosstown_document_violations_total";
    let help = "Requests and answers that broke an OpenAPI document.";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
    for one in broken {
        let BrokenView { service, operation, by, count, .. } = one;
        let labels = format!("service=\"{service}\",operation=\"{operation}\",by=\"{by}\"");
        let _ = writeln!(text, "{name}{{{labels}}} {count}");
    }
}

async fn publish(
    State(see): State<See>,
    by: By,
    Path((realm, service)): Path<(String, String)>,
    text: Bytes,
) -> Result<Response, Refusal> {
    json_with(StatusCode::OK, see.publish(&by, &realm, &service, &text).await?)
}

async fn withdraw(
    State(see): State<See>,
    by: By,
    Path((realm, service)): Path<(String, String)>,
) -> Answer {
    see.withdraw(&by, &realm, &service).await?;
    no_content()
}
