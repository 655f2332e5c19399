//! The page, what it asks for beyond CompreFace's interface, and what describes the service.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::body::{Options, images, json};
use super::look::Seen;
use super::refusal::{Json, Refusal};
use super::service::{Answer, Collection, Service};

type Here = State<Arc<Service>>;

/// The document of all addresses.
pub(super) const OPENAPI: &str = include_str!("openapi.json");
/// Subjects that the page shows beside a face.
const SHOWN: usize = 5;

pub(super) async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], OPENAPI)
}

pub(super) async fn html() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], include_str!("page/page.html"))
}

pub(super) async fn style() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("page/page.css"))
}

pub(super) async fn script() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("page/page.js"))
}

pub(super) async fn metrics(State(service): Here) -> Answer<impl IntoResponse> {
    let text = service.metrics.text(service.people.count()).map_err(Refusal::fault)?;
    Ok(([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}

/// The student, its measured errors, and the collection's threshold.
pub(super) async fn about(State(service): Here, Extension(Collection(of)): Extension<Collection>) -> Answer<Json> {
    let header = service.encoder.header();
    let subjects = service.blocking(move |service| Ok(service.people.store().subjects(of)?.len())).await?;
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "student": {
            "kind": header.kind,
            "digest": service.encoder.digest(),
            "size": header.card.input_size,
            "embedding": header.card.embedding,
        },
        "calibration": header.facts.calibration,
        "quality_false_match_rate": header.facts.quality.as_ref().map(|model| model.false_match_rate),
        "detector": service.detector,
        "keeps_images": service.keeps_images,
        "threshold": service.people.threshold(of),
        "subjects": subjects,
    })))
}

/// Says from which similarity on `recognize` names a subject; null names the nearest again, however far.
pub(super) async fn set_threshold(
    State(service): Here,
    Extension(Collection(of)): Extension<Collection>,
    request: Request,
) -> Answer<Json> {
    let body = json(&service.read(request).await?)?;
    let threshold = match body.get("similarity") {
        Some(Value::Null) => None,
        Some(value) => match value.as_f64().filter(|number| (0.0..=1.0).contains(number)) {
            Some(number) => Some(number),
            None => return Err(Refusal::constraint("similarity: expected 0.0 to 1.0, or null")),
        },
        None => return Err(Refusal::empty("similarity")),
    };
    service.blocking(move |service| service.people.set_threshold(of, threshold)).await?;
    Ok(Json(json!({ "similarity": threshold })))
}

/// The faces of an image as the student sees them, each with the subjects that are nearest, whatever the threshold.
pub(super) async fn look(
    State(service): Here,
    Extension(Collection(of)): Extension<Collection>,
    options: Options,
    request: Request,
) -> Answer<Json> {
    let [image] = images(service.read(request).await?, ["file"]).await?;
    let seen = service.faces(image, &options).await?;
    let seen = service
        .computing(move |service| {
            let with = |face: Seen| {
                let found = service.people.search(of, &face.embedding, SHOWN, true)?;
                Ok((face, found))
            };
            seen.into_iter().map(with).collect::<Answer<Vec<_>>>()
        })
        .await?;
    let faces = service
        .blocking(move |service| {
            let mut faces = Vec::with_capacity(seen.len());
            for (face, found) in seen {
                let mut matches = Vec::new();
                for found in found {
                    let example = service.people.nearest(of, found.subject, &face.embedding)?;
                    matches.push(json!({
                        "subject": found.name,
                        "similarity": found.similarity,
                        "image_id": example.map(|id| id.to_string()),
                    }));
                }
                let [left, top, right, bottom] = face.bounds;
                faces.push(json!({
                    "box": { "x_min": left, "y_min": top, "x_max": right, "y_max": bottom },
                    "pixels": face.pixels,
                    "unknowable": service.unknowable(&face).is_some(),
                    "quality": face.embedding.quality(),
                    "small": format!("data:image/png;base64,{}", STANDARD.encode(&face.small)),
                    "matches": matches,
                }));
            }
            Ok(faces)
        })
        .await?;
    Ok(Json(json!({ "faces": faces })))
}
