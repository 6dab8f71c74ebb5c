//! `/crosstown/v1/realms`: the realms and services that a caller can reach, what they promise as
//! one OpenAPI document, and the documents that realms publish.

mod page;

use crate::{
    Parts, admin,
    answer::{Answer, Done, refuse},
    document::{Inferred, OfOpenApi, content, told},
    request::{By, DocumentText, InPath, Json, Wanted},
};
use aide::{
    OperationOutput,
    axum::{
        ApiRouter,
        routing::{get_with, put_with},
    },
    generate::GenContext,
    openapi::Operation,
};
use async_trait::async_trait;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use bridge::{Audience, Crossing, Member, Realms, document_for};
use http::{HeaderValue, header};
use protocol::{
    Code::{self, BodyTooLarge, Conflict, NotFound, StoreFull},
    Problem,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};
use types::{Caller, Timestamp};

/// A document that was taken.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "PublishedDocument")]
pub struct Published {
    /// What the API calls itself.
    pub title: String,
    /// The document's version.
    pub version: String,
    /// How many operations it has.
    pub operations: usize,
}

/// A route from outside to the operations of a service.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Door {
    /// The service.
    pub service: String,
    /// What the paths of its operations begin with.
    pub prefix: String,
}

/// How an operation's document was broken.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "BrokenDocument")]
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

const DOCUMENT: &str = "What can be called, as one OpenAPI document.";

pub(crate) fn routes() -> ApiRouter<Parts> {
    let refused: &[Code] = &[NotFound, Conflict, BodyTooLarge, StoreFull];
    let published = put_with(
        publish,
        told("publishDocument", "Publish a service's OpenAPI document.", refused),
    )
    .delete_with(withdraw, told("withdrawDocument", "Forget it.", &[NotFound, Conflict]));
    ApiRouter::new()
        .api_route(
            "/realms",
            get_with(of_caller, told("discover", "The caller's realm, and what it may call.", &[])),
        )
        .api_route(
            "/realms/openapi",
            get_with(document_of_caller, told("readRealmDocument", DOCUMENT, &[])),
        )
        .api_route("/realms/{realm}/services/{service}/openapi", published)
}

pub(crate) fn admin_routes() -> ApiRouter<admin::Parts> {
    ApiRouter::new()
        .api_route("/realms", get_with(all, told("readRealms", "All realms.", &[])))
        .api_route(
            "/realms/openapi",
            get_with(document_of_audience, told("readRealmDocument", DOCUMENT, &[NotFound])),
        )
}

/// Which service of which realm a path names.
#[derive(Deserialize, JsonSchema)]
struct OfRealm {
    /// The realm.
    realm: String,
    /// What callers name the service.
    service: String,
}

/// A service, as whoever may call it sees it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ServiceOfRealm")]
struct ServiceTold {
    /// What callers name it.
    name: String,
    version: String,
    tags: Vec<String>,
    preview: bool,
    /// The title of its document.
    title: Option<String>,
    /// Its operations that may be called; none without a document.
    operations: Option<Vec<OperationTold>>,
    /// Whether its document has yet to come.
    waits_for_document: bool,
    /// Its instances that are fit, as this node sees them.
    instances_fit: usize,
    /// All of its instances.
    instances: usize,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OperationOfService")]
struct OperationTold {
    id: String,
    method: String,
    path: String,
    summary: Option<String>,
    deprecated: bool,
}

/// Services by realm.
type ByRealm = BTreeMap<String, Vec<ServiceTold>>;

/// The services of each realm, with what `from` may call of them; all of it for the operator.
fn listing(
    realms: &Realms,
    instances: &BTreeMap<String, (usize, usize)>,
    from: Option<&str>,
) -> ByRealm {
    let mut told: ByRealm =
        realms.iter().map(|realm| (realm.name().to_owned(), Vec::new())).collect();
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
                id: operation.id().to_owned(),
                method: operation.method().to_string(),
                path: operation.path().to_owned(),
                summary: operation.summary().map(str::to_owned),
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
                name: member.name.clone(),
                version: member.version.to_string(),
                tags: member.config.tags.clone(),
                preview: member.config.preview,
                title: member.document.as_ref().map(|document| document.title().to_owned()),
                operations,
                waits_for_document: member.waits_for_document(),
                instances_fit: instances.get(&member.service).map_or(0, |(fit, _)| *fit),
                instances: instances.get(&member.service).map_or(0, |(_, all)| *all),
            });
        }
    }
    for services in told.values_mut() {
        services.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    }
    told.retain(|_, services| from.is_none() || !services.is_empty());
    told
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Discovered {
    /// Services of this realm.
    realm: Option<String>,
    /// Those of this name.
    service: Option<String>,
    /// Those whose version fits: `1`, `^1.2`, `>=2, <4`.
    version: Option<String>,
    /// Those with this tag.
    tag: Option<String>,
}

/// The realm of the caller, and what it may call.
#[derive(Serialize, JsonSchema)]
struct Discovery {
    /// The caller's; none, if it belongs to no realm.
    realm: Option<String>,
    /// Services that it may call, by realm.
    realms: ByRealm,
}

/// The realm of the caller, and what it may call: of a realm, by a name, of a version, with a tag.
async fn of_caller(
    State(see): State<See>,
    by: By,
    Wanted(asked): Wanted<Discovered>,
) -> Answer<Json<Discovery>> {
    let realms = see.realms();
    let Some(own) = realms.of_caller(&by) else {
        return Ok(Json(Discovery { realm: None, realms: ByRealm::new() }));
    };
    let wanted = match &asked.version {
        None => None,
        Some(text) => match text.parse::<semver::VersionReq>() {
            Ok(wanted) => Some(wanted),
            Err(_) => return refuse(Code::BadRequest, format!("`{text}` is no version")),
        },
    };
    let mut told = listing(&realms, &see.instances(), Some(own));
    let fits = |service: &ServiceTold| {
        let version = || service.version.parse::<semver::Version>().ok();
        asked.service.as_ref().is_none_or(|name| *name == service.name)
            && asked.tag.as_ref().is_none_or(|tag| service.tags.contains(tag))
            && wanted.as_ref().is_none_or(|w| version().is_some_and(|v| w.matches(&v)))
    };
    told.retain(|realm, services| {
        services.retain(fits);
        asked.realm.as_ref().is_none_or(|wanted| wanted == realm) && !services.is_empty()
    });
    Ok(Json(Discovery { realm: Some(own.to_string()), realms: told }))
}

/// All realms.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Realms")]
struct AllRealms {
    /// Their services.
    realms: ByRealm,
    /// Routes from outside to operations.
    doors: Vec<Door>,
    /// How documents were broken.
    broken: Vec<BrokenView>,
}

async fn all(State(see): State<See>) -> Answer<Json<AllRealms>> {
    let realms = see.realms();
    let told = listing(&realms, &see.instances(), None);
    Ok(Json(AllRealms { realms: told, doors: see.doors(), broken: see.broken() }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Form {
    /// `json` or `html`.
    #[serde(default)]
    format: Format,
    /// A realm; for others than the operator, the own one. None: what is open to those from outside.
    audience: Option<String>,
}

#[derive(Deserialize, JsonSchema, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Html,
}

async fn document_of_caller(
    State(see): State<See>,
    by: By,
    Wanted(form): Wanted<Form>,
) -> Answer<Shown> {
    let realms = see.realms();
    let own = realms.of_caller(&by).map(|realm| &**realm);
    if form.audience.is_some() && form.audience.as_deref() != own {
        return refuse(Code::Forbidden, "the document of another realm is for those of it");
    }
    Ok(document(&see, &realms, own, form.format))
}

async fn document_of_audience(State(see): State<See>, Wanted(form): Wanted<Form>) -> Answer<Shown> {
    let realms = see.realms();
    let audience = form.audience.as_deref();
    if let Some(name) = audience.filter(|name| !realms.iter().any(|realm| realm.name() == *name)) {
        return refuse(Code::NotFound, format!("there is no realm `{name}`"));
    }
    Ok(document(&see, &realms, audience, form.format))
}

/// A document in the form that was asked for.
struct Shown {
    document: Value,
    format: Format,
}

impl IntoResponse for Shown {
    fn into_response(self) -> Response {
        match self.format {
            Format::Json => Json(self.document).into_response(),
            Format::Html => html(&self.document),
        }
    }
}

impl OperationOutput for Shown {
    type Inner = OfOpenApi;

    fn inferred_responses(context: &mut GenContext, _: &mut Operation) -> Inferred {
        let mut told = crate::document::json::<OfOpenApi>(context);
        let page = context.schema.subschema_for::<String>();
        told.content.extend(content("text/html", page));
        vec![(Some(200), told)]
    }
}

fn document(see: &See, realms: &Realms, realm: Option<&str>, format: Format) -> Shown {
    let doors = see.doors();
    let doors: Vec<(&str, &str)> =
        doors.iter().map(|door| (door.service.as_str(), door.prefix.as_str())).collect();
    let audience = realm.map_or(Audience::Public, Audience::Realm);
    Shown { document: document_for(realms, audience, &doors), format }
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
    InPath(OfRealm { realm, service }): InPath<OfRealm>,
    DocumentText(text): DocumentText,
) -> Answer<Json<Published>> {
    Ok(Json(see.publish(&by, &realm, &service, &text).await?))
}

async fn withdraw(
    State(see): State<See>,
    by: By,
    InPath(OfRealm { realm, service }): InPath<OfRealm>,
) -> Answer<Done> {
    see.withdraw(&by, &realm, &service).await?;
    Ok(Done)
}
