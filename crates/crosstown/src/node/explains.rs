//! What would become of a request, told to the operator.

use api::explain::{Explains, Explanation, Hypothesis, Hypothetical};
use async_trait::async_trait;
use gateway::{Gateway, Question};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use protocol::{Code, Problem};
use std::sync::Arc;
use traffic_cop::identity::Identity;
use types::{Caller, CredentialKind, Principal};

pub(super) struct ByGateway {
    pub(super) gateway: Arc<Gateway>,
    pub(super) identity: Arc<Identity>,
}

#[async_trait]
impl Explains for ByGateway {
    async fn explain(&self, asked: Hypothetical) -> Result<Explanation, Problem> {
        let refused = |detail: String| Problem::new(Code::BadRequest, detail);
        let method = Method::from_bytes(asked.method.as_bytes())
            .map_err(|_| refused(format!("`{}` is not a method", asked.method)))?;
        let url: Uri =
            asked.url.parse().map_err(|_| refused(format!("`{}` is not a URL", asked.url)))?;
        let mut headers = HeaderMap::new();
        let host = url.authority().map(|authority| HeaderValue::from_str(authority.as_str()));
        if let Some(Ok(host)) = host {
            headers.insert(header::HOST, host);
        }
        for (name, value) in &asked.headers {
            let field = || refused(format!("`{name}: {value}` is not a header field"));
            let name: HeaderName = name.parse().map_err(|_| field())?;
            headers.insert(name, HeaderValue::from_str(value).map_err(|_| field())?);
        }
        let caller = match asked.by {
            Some(by) => Some(Arc::new(hypothetical(by))),
            None => match Identity::credential(&headers)?.map(str::to_owned) {
                Some(token) => Some(Arc::clone(&self.identity).identify(token).await?.caller),
                None => self.identity.anonymous(),
            },
        };
        let path = url.path_and_query().map_or("/", |target| target.as_str());
        let target = path.parse().map_err(|_| refused(format!("`{path}` is not a path")))?;
        let question = Question { method, target, headers, ip: asked.ip, caller };
        let told = serde_json::to_value(self.gateway.explain(&question));
        told.and_then(serde_json::from_value).map_err(|error| {
            Problem::new(Code::Internal, format!("the explanation cannot be written: {error}"))
        })
    }
}

fn hypothetical(by: Hypothesis) -> Caller {
    let Hypothesis { tenant, kind, principal, roles } = by;
    let principal = Principal { kind, id: principal };
    let caller = Caller::new(tenant, principal, CredentialKind::Anonymous);
    Caller { roles: roles.into(), ..caller }
}
