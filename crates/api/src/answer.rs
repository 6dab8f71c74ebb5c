//! Answers: JSON, or a problem document; and what our own OpenAPI document says of them.

use crate::{
    document::{self, Inferred},
    request::Json,
};
use aide::{OperationOutput, generate::GenContext, openapi::Operation};
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use protocol::{Code, Problem};
use schemars::JsonSchema;
use serde::Serialize;

/// An error on its way to the client. Which ones there may be is said of each operation.
pub(crate) struct Refusal(pub(crate) Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.0.to_response().map(Body::from)
    }
}

impl OperationOutput for Refusal {
    type Inner = Self;
}

/// A refusal with a sentence.
pub(crate) fn refuse<T>(code: Code, detail: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(Problem::new(code, detail)))
}

/// What a handler answers.
pub(crate) type Answer<T> = Result<T, Refusal>;

fn written(status: StatusCode, body: impl Serialize) -> Response {
    let Ok(text) = serde_json::to_vec(&body) else {
        let detail = "the answer cannot be written";
        return Refusal(Problem::new(Code::Internal, detail)).into_response();
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// As an answer: 200.
impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        written(StatusCode::OK, self.0)
    }
}

impl<T: JsonSchema> OperationOutput for Json<T> {
    type Inner = T;

    fn inferred_responses(context: &mut GenContext, _: &mut Operation) -> Inferred {
        vec![(Some(200), document::json::<T>(context))]
    }
}

/// 201 with a JSON body.
pub(crate) struct Created<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        written(StatusCode::CREATED, self.0)
    }
}

impl<T: JsonSchema> OperationOutput for Created<T> {
    type Inner = T;

    fn inferred_responses(context: &mut GenContext, _: &mut Operation) -> Inferred {
        vec![(Some(201), document::json::<T>(context))]
    }
}

/// 200 with a JSON body, or `STATUS` with one of the same form.
pub(crate) enum OkOr<const STATUS: u16, T> {
    Ok(T),
    Else(T),
}

impl<const STATUS: u16, T: Serialize> IntoResponse for OkOr<STATUS, T> {
    fn into_response(self) -> Response {
        match self {
            Self::Ok(body) => written(StatusCode::OK, body),
            Self::Else(body) => {
                let status = StatusCode::from_u16(STATUS).expect("handlers name valid statuses");
                written(status, body)
            }
        }
    }
}

impl<const STATUS: u16, T: JsonSchema> OperationOutput for OkOr<STATUS, T> {
    type Inner = T;

    fn inferred_responses(context: &mut GenContext, _: &mut Operation) -> Inferred {
        let told = document::json::<T>(context);
        vec![(Some(200), told.clone()), (Some(STATUS), told)]
    }
}

/// 204.
pub(crate) struct Done;

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

impl OperationOutput for Done {
    type Inner = Self;

    fn inferred_responses(_: &mut GenContext, _: &mut Operation) -> Inferred {
        vec![(Some(204), document::empty())]
    }
}

/// 200 with a text.
pub(crate) struct Text {
    /// Its media type, which begins with `text/plain`.
    pub(crate) format: &'static str,
    pub(crate) body: String,
}

impl IntoResponse for Text {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, self.format)], self.body).into_response()
    }
}

impl OperationOutput for Text {
    type Inner = String;

    fn inferred_responses(context: &mut GenContext, _: &mut Operation) -> Inferred {
        vec![(Some(200), document::of_type::<String>(context, "text/plain"))]
    }
}

pub(crate) async fn no_such_path() -> Refusal {
    Refusal(Problem::new(Code::NotFound, "there is nothing at this path"))
}

pub(crate) async fn no_such_method() -> Refusal {
    Refusal(Problem::new(Code::MethodNotAllowed, "the resource does not know this method"))
}
