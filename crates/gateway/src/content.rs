//! What a route does with bodies: copy, keep, change, compress. A route that does nothing of it
//! has none of this, and costs nothing for it.

use crate::{
    cache::{Asking, CacheConfig, Looked, Scope},
    compress::{Accepted, CompressConfig},
    config::RouteConfig,
    core::Core,
    edit::Edit,
    mirror::Mirror,
    reshape::{Reshape, Unfit},
};
use http::{Method, Response, header, request::Parts};
use http_body::Body as _;
use protocol::{Code, Problem};
use soa::{Body, BoxError, Services};
use std::{rc::Rc, time::Duration};

/// What a route does with bodies.
#[derive(Debug)]
pub(crate) struct Content {
    mirror: Option<Mirror>,
    cache: Option<CacheConfig>,
    compress: Option<CompressConfig>,
    request_json: Option<Reshape>,
    response_json: Option<Reshape>,
}

/// What has to be known of a request when its answer comes.
pub(crate) struct Pending {
    accepted: Accepted,
    asking: Option<Asking>,
    method: Method,
}

/// What becomes of a request.
pub(crate) enum Turn {
    /// It goes on with this body.
    Send(Body),
    /// It is answered by what was kept.
    Answer(Response<Body>),
}

/// Why a request does not go on.
pub(crate) enum Stop {
    /// The client's body broke.
    Body(BoxError),
    /// It is refused.
    Refused(Problem),
}

impl Content {
    /// What a route asks for; none if it asks for nothing.
    ///
    /// # Errors
    /// What to change.
    pub(crate) fn compile(
        route: &RouteConfig,
        services: &Services,
    ) -> Result<Option<Box<Self>>, String> {
        let reshape = |config: Option<&_>| config.map(Reshape::compile).transpose();
        let mirror = route.mirror.as_ref();
        let content = Self {
            mirror: mirror.map(|mirror| Mirror::compile(mirror, services)).transpose()?,
            cache: route.cache,
            compress: route.compress.clone(),
            request_json: reshape(route.request_json.as_ref())?,
            response_json: reshape(route.response_json.as_ref())?,
        };
        let asked = content.mirror.is_some()
            || content.cache.is_some()
            || content.compress.is_some()
            || content.request_json.is_some()
            || content.response_json.is_some();
        Ok(asked.then(|| Box::new(content)))
    }

    /// Before a request, whose head is as the service will see it, goes on.
    pub(crate) async fn before(
        &self,
        core: &Rc<Core>,
        scope: &Scope<'_>,
        head: &mut Parts,
        mut body: Body,
    ) -> Result<(Turn, Pending), Stop> {
        let method = head.method.clone();
        let accepted = match &self.compress {
            Some(compress) => compress.accepted(&method, &mut head.headers),
            None => Accepted::default(),
        };
        if self.response_json.is_some() {
            // What is to be changed has to be read.
            head.headers.remove(header::ACCEPT_ENCODING);
        }
        if let Some(reshape) = &self.request_json
            && reshape.concerns(&head.headers, &body)
        {
            body = reshape.apply(&mut head.headers, body).await.map_err(unfit_request)?;
        }
        if let Some(mirror) = &self.mirror {
            body = mirror.copy(core, head, body).await.map_err(Stop::Body)?;
        }
        // Of a request with a body, the target alone does not say what is asked for.
        let is_read = method == Method::GET || method == Method::HEAD;
        let cache = self.cache.filter(|_| !is_read || body.is_end_stream());
        let looked = cache.and_then(|cache| cache.look(&core.node.cache, scope, head, core.now()));
        let (turn, asking) = match looked {
            Some(Looked::Answer(answer)) => (Turn::Answer(answer), None),
            Some(Looked::Ask(asking)) => (Turn::Send(body), Some(asking)),
            None => (Turn::Send(body), None),
        };
        Ok((turn, Pending { accepted, asking, method }))
    }

    /// When the head of the answer has come; `patience` is how long may be waited for its body if
    /// all of it is needed.
    ///
    /// # Errors
    /// `bad_gateway` if the answer cannot be changed as the route says.
    pub(crate) async fn after(
        &self,
        core: &Core,
        pending: Pending,
        mut answer: Response<Body>,
        edit: &Edit,
        patience: Duration,
    ) -> Result<Response<Body>, Problem> {
        let Pending { accepted, asking, method } = pending;
        if let Some(asking) = asking {
            answer = asking.answered(answer, core.now());
        }
        if let Some(reshape) = &self.response_json {
            answer = reshaped(reshape, &method, answer, patience).await?;
        }
        edit.apply(answer.headers_mut());
        Ok(match &self.compress {
            Some(compress) => compress.apply(&accepted, answer),
            None => answer,
        })
    }
}

async fn reshaped(
    reshape: &Reshape,
    method: &Method,
    answer: Response<Body>,
    patience: Duration,
) -> Result<Response<Body>, Problem> {
    let (mut parts, body) = answer.into_parts();
    if *method == Method::HEAD {
        // It would tell the length of what nobody gets.
        parts.headers.remove(header::CONTENT_LENGTH);
        return Ok(Response::from_parts(parts, body));
    }
    if !reshape.concerns(&parts.headers, &body) {
        return Ok(Response::from_parts(parts, body));
    }
    let changed = tokio::time::timeout(patience, reshape.apply(&mut parts.headers, body)).await;
    let why = match changed {
        Ok(Ok(body)) => return Ok(Response::from_parts(parts, body)),
        Ok(Err(Unfit::TooLong)) => "it is longer than the route reads",
        Ok(Err(Unfit::NotJson)) => "it is no JSON, or is compressed",
        Ok(Err(Unfit::Broken(_))) => "it ended early",
        Err(_) => {
            let detail = "the body of the service's answer did not come in time";
            return Err(Problem::new(Code::UpstreamTimeout, detail));
        }
    };
    let detail = format!("the service's answer cannot be changed as the route says: {why}");
    Err(Problem::new(Code::BadGateway, detail))
}

fn unfit_request(unfit: Unfit) -> Stop {
    match unfit {
        Unfit::TooLong => Stop::Refused(crate::exchange::too_large()),
        Unfit::NotJson => {
            let detail = "the body is not the JSON that its media type says";
            Stop::Refused(Problem::new(Code::BadRequest, detail))
        }
        Unfit::Broken(error) => Stop::Body(error),
    }
}
