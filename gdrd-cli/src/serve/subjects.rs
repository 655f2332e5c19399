//! `/api/v1/recognition/subjects`.

use std::sync::Arc;

use axum::extract::{Extension, Path, Request, State};
use axum::http::StatusCode;
use serde_json::json;

use super::body::subject;
use super::refusal::{Json, Refusal};
use super::service::{Answer, Collection, Service};

type Here = State<Arc<Service>>;

pub(super) async fn list(State(service): Here, Extension(Collection(of)): Extension<Collection>) -> Answer<Json> {
    let all = service.blocking(move |service| Ok(service.people.store().subjects(of)?)).await?;
    let names: Vec<String> = all.into_iter().map(|(_, name)| name).collect();
    Ok(Json(json!({ "subjects": names })))
}

pub(super) async fn add(
    State(service): Here,
    Extension(Collection(of)): Extension<Collection>,
    request: Request,
) -> Answer<(StatusCode, Json)> {
    let name = subject(&service.read(request).await?)?;
    let answer = json!({ "subject": name });
    service.blocking(move |service| service.people.add_subject(of, &name)).await?;
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(super) async fn rename(
    State(service): Here,
    Extension(Collection(of)): Extension<Collection>,
    Path(old): Path<String>,
    request: Request,
) -> Answer<Json> {
    let new = subject(&service.read(request).await?)?;
    let updated = service.blocking(move |service| service.people.rename(of, &old, &new)).await?;
    Ok(Json(json!({ "updated": updated })))
}

pub(super) async fn delete(
    State(service): Here,
    Extension(Collection(of)): Extension<Collection>,
    Path(name): Path<String>,
) -> Answer<Json> {
    if name.trim().is_empty() {
        return Err(Refusal::constraint("Subject name is empty"));
    }
    let (name, _) = service.blocking(move |service| service.people.delete_subject(of, &name)).await?;
    Ok(Json(json!({ "subject": name })))
}

pub(super) async fn delete_all(State(service): Here, Extension(Collection(of)): Extension<Collection>) -> Answer<Json> {
    let (subjects, _) = service.blocking(move |service| service.people.delete_all(of)).await?;
    Ok(Json(json!({ "deleted": subjects })))
}
