//! Answers: JSON, or a problem document.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use protocol::{Code, Problem};
use serde::Serialize;

/// An error on its way to the client.
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

/// A refusal with a sentence.
pub(crate) fn refuse<T>(code: Code, detail: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(Problem::new(code, detail)))
}

/// What a handler answers.
pub(crate) type Answer = Result<Response, Refusal>;

/// 200 with a JSON body.
pub(crate) fn json(body: impl Serialize) -> Answer {
    json_with(StatusCode::OK, body)
}

/// Another status with a JSON body.
pub(crate) fn json_with(status: StatusCode, body: impl Serialize) -> Answer {
    let Ok(text) = serde_json::to_vec(&body) else {
        return refuse(Code::Internal, "the answer cannot be written");
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

pub(crate) fn no_content() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn no_such_path() -> Refusal {
    Refusal(Problem::new(Code::NotFound, "there is nothing at this path"))
}

pub(crate) async fn no_such_method() -> Refusal {
    Refusal(Problem::new(Code::MethodNotAllowed, "the resource does not know this method"))
}
