//! Answers in JSON, and what a client is told when there is no other: CompreFace's codes.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use gdrd_core::error::Error;
use serde_json::{Value, json};

/// An answer. (axum's own would have serde_json built with another feature, and with it everything of gdrd.)
pub(super) struct Json(pub(super) Value);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], self.0.to_string()).into_response()
    }
}

/// A request that is not answered, and why: `{"message": ..., "code": ...}`.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    /// CompreFace's number of the error; 0 where it has none.
    code: u16,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: u16, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn bad(code: u16, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// What is said.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// A field of the body that is empty.
    pub(super) fn empty(field: &str) -> Self {
        Self::bad(5, format!("Field {field} cannot be empty"))
    }

    /// A key that belongs to no collection.
    pub(super) fn unknown_key() -> Self {
        Self::new(StatusCode::NOT_FOUND, 10, "No service with this API key was found")
    }

    pub(super) fn no_key() -> Self {
        Self::bad(20, "Missing header: x-api-key")
    }

    /// What is no image that can be read.
    pub(super) fn image(why: impl Into<String>) -> Self {
        Self::bad(21, why)
    }

    /// A value that is out of its range.
    pub(super) fn constraint(why: impl Into<String>) -> Self {
        Self::bad(26, why)
    }

    /// A face that is too small to be known again.
    pub(super) fn small(found: usize, least: usize) -> Self {
        Self::constraint(format!(
            "The face has a height of {found} px; expected at least {least}, the smallest that this student was calibrated for"
        ))
    }

    /// A face that shows nothing.
    pub(super) fn blank() -> Self {
        Self::constraint("The image has one colour where a face was expected")
    }

    pub(super) fn no_face() -> Self {
        Self::bad(28, "No face is found in the given image")
    }

    pub(super) fn many_faces() -> Self {
        Self::bad(31, "More than one face in the source image")
    }

    pub(super) fn no_parameter(name: &str) -> Self {
        Self::bad(33, format!("Required parameter {name} is missing"))
    }

    pub(super) fn no_part(name: &str) -> Self {
        Self::bad(34, format!("Required part {name} is missing"))
    }

    /// What cannot be understood.
    pub(super) fn argument(why: impl Into<String>) -> Self {
        Self::bad(36, why)
    }

    pub(super) fn embeddings(least: usize, found: usize) -> Self {
        Self::bad(37, format!("{least} embeddings were expected, but {found} were provided"))
    }

    pub(super) fn no_subject(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, 42, format!("Subject {name} not found"))
    }

    pub(super) fn subject_exists() -> Self {
        Self::bad(43, "Subject already exists")
    }

    pub(super) fn no_example(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, 44, format!("Image {id} not found"))
    }

    pub(super) fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, 0, "Nothing is at this address; /openapi.json says what there is")
    }

    pub(super) fn no_such_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, 0, "This address has no such method; /openapi.json says which it has")
    }

    pub(super) fn too_large(megabytes: usize) -> Self {
        let message = format!("The body has more than {megabytes} MB, which is the most that this server reads");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, 0, message)
    }

    pub(super) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, 0, "The request did not come in in time")
    }

    /// So much to do that another request is better sent later.
    pub(super) fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, 0, "The server is busy; send the request again later")
    }

    /// A fault that the client can do nothing about.
    pub(super) fn fault(error: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, 41, error.to_string())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::fault(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if self.status.is_server_error() && self.status != StatusCode::SERVICE_UNAVAILABLE {
            talk!("error: {}", self.message);
        }
        let busy = self.status == StatusCode::SERVICE_UNAVAILABLE;
        let mut answer = (self.status, Json(json!({ "message": self.message, "code": self.code }))).into_response();
        if busy {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }
}
