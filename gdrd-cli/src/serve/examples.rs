//! `/api/v1/recognition/faces`: the faces by which subjects are known.

use std::sync::Arc;

use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderName, StatusCode, header};
use serde_json::{Value, json};
use uuid::Uuid;

use super::body::{Options, id, images, json, name};
use super::refusal::{Json, Refusal};
use super::service::{Answer, Collection, Service};
use super::store::New;

type Here = State<Arc<Service>>;

/// Faces on a page unless a request says another number, and at most.
const PAGE: (i64, u64) = (20, 10_000);
/// Faces that one request may delete.
const DELETED: usize = 10_000;

pub(super) async fn list(
    State(service): Here,
    Extension(Collection(of)): Extension<Collection>,
    options: Options,
) -> Answer<Json> {
    let page = options.number("page", 0, 0)?.unsigned_abs();
    let size = options.number("size", 1, PAGE.0)?.unsigned_abs().min(PAGE.1);
    let subject = options.text("subject").map(str::to_string);
    let (rows, count) = service
        .blocking(move |service| {
            let store = service.people.store();
            let subject = match subject {
                None => None,
                Some(name) => match store.subject(of, &name)? {
                    Some(subject) => Some(subject),
                    None => return Ok((Vec::new(), 0)),
                },
            };
            Ok(store.page(of, subject, page, size)?)
        })
        .await?;
    let faces: Vec<Value> =
        rows.into_iter().map(|(id, subject)| json!({ "image_id": id.to_string(), "subject": subject })).collect();
    Ok(Json(json!({
        "faces": faces,
        "page_number": page,
        "page_size": size,
        "total_pages": count.div_ceil(size),
        "total_elements": count,
    })))
}

pub(super) async fn add(
    State(service): Here,
    Extension(Collection(of)): Extension<Collection>,
    options: Options,
    request: Request,
) -> Answer<(StatusCode, Json)> {
    let request = service.read(request).await?;
    let subject = name(options.text("subject").ok_or_else(|| Refusal::no_parameter("subject"))?)?.to_string();
    let [image] = images(request, ["file"]).await?;
    let mut seen = service.faces(image.clone(), &options).await?;
    let (Some(face), true) = (seen.pop(), seen.is_empty()) else { return Err(Refusal::many_faces()) };
    if let Some(refusal) = service.unknowable(&face) {
        return Err(refusal);
    }
    let shown = subject.clone();
    let id = service
        .blocking(move |service| {
            let images = service.keeps_images.then_some((&image[..], &face.small[..]));
            let new = New { values: face.embedding.values(), pixels: face.pixels, images };
            service.people.add_example(of, &subject, &new)
        })
        .await?;
    Ok((StatusCode::CREATED, Json(json!({ "image_id": id.to_string(), "subject": shown }))))
}

pub(super) async fn delete_of_subject(
    State(service): Here,
    Extension(Collection(of)): Extension<Collection>,
    options: Options,
) -> Answer<Json> {
    let subject = options.text("subject").map(str::to_string);
    let deleted = service
        .blocking(move |service| match subject {
            None => service.people.delete_all(of).map(|(_, faces)| faces),
            Some(name) if service.people.store().subject(of, &name)?.is_none() => Ok(0),
            Some(name) => service.people.delete_subject(of, &name).map(|(_, faces)| faces),
        })
        .await?;
    Ok(Json(json!({ "deleted": deleted })))
}

pub(super) async fn delete(
    State(service): Here,
    Extension(Collection(of)): Extension<Collection>,
    Path(text): Path<String>,
) -> Answer<Json> {
    let face = id(&text)?;
    let deleted = service.blocking(move |service| service.people.delete_examples(of, &[face])).await?;
    let (id, subject) = deleted.into_iter().next().ok_or_else(|| Refusal::no_example(&text))?;
    Ok(Json(json!({ "image_id": id.to_string(), "subject": subject })))
}

pub(super) async fn delete_many(
    State(service): Here,
    Extension(Collection(of)): Extension<Collection>,
    request: Request,
) -> Answer<Json> {
    let list = json(&service.read(request).await?)?;
    let list = list.as_array().ok_or_else(|| Refusal::argument("Expected a list of UUIDs of images"))?;
    if list.len() > DELETED {
        return Err(Refusal::constraint(format!("Expected at most {DELETED} images, found {}", list.len())));
    }
    let ids: Vec<Uuid> = list.iter().map(|one| id(one.as_str().unwrap_or_default())).collect::<Answer<_>>()?;
    let deleted = service.blocking(move |service| service.people.delete_examples(of, &ids)).await?;
    let all = deleted.into_iter().map(|(id, subject)| json!({ "image_id": id.to_string(), "subject": subject }));
    Ok(Json(Value::Array(all.collect())))
}

/// The type of an image and its bytes.
type Picture = ([(HeaderName, &'static str); 1], Vec<u8>);

/// An image; without bytes if there is none, as CompreFace answers.
async fn picture(service: &Arc<Service>, of: i64, text: &str, small: bool) -> Answer<Picture> {
    let face = id(text)?;
    let image = service.blocking(move |service| Ok(service.people.store().image(of, face, small)?)).await?;
    let kind = if small { "image/png" } else { "application/octet-stream" };
    Ok(([(header::CONTENT_TYPE, kind)], image.unwrap_or_default()))
}

pub(super) async fn image(
    State(service): Here,
    Extension(Collection(of)): Extension<Collection>,
    Path(text): Path<String>,
) -> Answer<Picture> {
    picture(&service, of, &text, false).await
}

pub(super) async fn small_image(
    State(service): Here,
    Extension(Collection(of)): Extension<Collection>,
    Path(text): Path<String>,
) -> Answer<Picture> {
    picture(&service, of, &text, true).await
}

pub(super) async fn static_image(State(service): Here, Path((key, text)): Path<(String, String)>) -> Answer<Picture> {
    let of = service.collection(&key).ok_or_else(Refusal::unknown_key)?;
    picture(&service, of, &text, false).await
}
