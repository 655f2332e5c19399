//! Who is it, and are these two the same? By images and by embeddings.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Extension, Path, Request, State};
use gdrd_student::Embedding;
use serde_json::{Map, Value, json};

use super::body::{Options, id, images, json};
use super::look::Seen;
use super::people::Named;
use super::refusal::{Json, Refusal};
use super::service::{Answer, Collection, Service};

type Here = State<Arc<Service>>;

/// Embeddings that one request may bring.
const EMBEDDINGS: usize = 1000;
/// Subjects that are named for a face, at most.
const NAMED: usize = 1000;

/// A number with five digits behind the point, as CompreFace rounds.
fn rounded(number: f32) -> f64 {
    (f64::from(number) * 1e5).round() / 1e5
}

/// A cosine as CompreFace's similarity, which is never negative. A cosine of 0 says as little as one below it.
fn similarity(cosine: f32) -> f64 {
    rounded(cosine.max(0.0))
}

/// What is said of a face, as far as a request asks for it.
fn described(seen: &Seen, options: &Options) -> Answer<Map<String, Value>> {
    let [left, top, right, bottom] = seen.bounds;
    let mut face = Map::new();
    let bounds = json!({
        "probability": rounded(seen.probability), "x_max": right, "y_max": bottom, "x_min": left, "y_min": top,
    });
    face.insert("box".into(), bounds);
    if options.has_plugin("calculator") {
        face.insert("embedding".into(), json!(seen.embedding.values()));
    }
    if let Some(points) = seen.landmarks.filter(|_| options.has_plugin("landmarks")) {
        face.insert("landmarks".into(), json!(points.map(|point| point.map(|at| at.round() as i64))));
    }
    if let Some(quality) = seen.embedding.quality() {
        face.insert("quality".into(), json!(rounded(quality as f32)));
    }
    if options.flag("status", false)? {
        let [detector, calculator] = seen.took;
        face.insert("execution_time".into(), json!({ "detector": detector, "calculator": calculator }));
    }
    Ok(face)
}

impl Service {
    /// An answer with its result, and what made it if a request asks for that.
    fn answer(&self, result: Value, options: &Options) -> Answer<Json> {
        let mut answer = json!({ "result": result });
        if options.flag("status", false)? {
            answer["plugins_versions"] = self.made_by();
        }
        Ok(Json(answer))
    }

    fn made_by(&self) -> Value {
        let digest: String = self.encoder.digest().chars().take(12).collect();
        json!({
            "detector": self.detector.as_deref().unwrap_or("none: an image is a face"),
            "calculator": format!("gdrd {} {digest}", self.encoder.header().kind),
        })
    }

    /// Embeddings that a client brings, as `[count, width]`.
    fn brought(&self, list: Option<&Value>, least: usize) -> Answer<Vec<(Value, Embedding)>> {
        let list = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if list.len() < least {
            return Err(Refusal::embeddings(least, list.len()));
        }
        if list.len() > EMBEDDINGS {
            return Err(Refusal::constraint(format!("Expected at most {EMBEDDINGS} embeddings, found {}", list.len())));
        }
        list.iter().map(|one| Ok((one.clone(), self.embedding(one)?))).collect()
    }

    fn embedding(&self, values: &Value) -> Answer<Embedding> {
        let numbers = values.as_array().map(Vec::as_slice).unwrap_or_default();
        let numbers: Option<Vec<f32>> = numbers.iter().map(|one| one.as_f64().map(|number| number as f32)).collect();
        let numbers = numbers.filter(|all| all.iter().all(|number| number.is_finite()));
        let numbers = numbers.ok_or_else(|| Refusal::argument("An embedding has values that are no numbers"))?;
        self.encoder.embedding(&numbers, 1).map_err(|error| Refusal::argument(format!("An embedding: {error}")))
    }
}

fn subjects(found: &[Named]) -> Value {
    found.iter().map(|one| json!({ "subject": one.name, "similarity": similarity(one.similarity) })).collect()
}

/// How many subjects are named for a face; -1 is all that there are.
fn predictions(options: &Options) -> Answer<usize> {
    match options.number("prediction_count", -1, 1)? {
        0 => Err(Refusal::constraint("prediction_count should be equal or greater than 1")),
        -1 => Ok(NAMED),
        count => Ok(usize::try_from(count).unwrap_or(NAMED).min(NAMED)),
    }
}

pub(super) async fn recognise(
    State(service): Here,
    Extension(Collection(of)): Extension<Collection>,
    options: Options,
    request: Request,
) -> Answer<Json> {
    let most = predictions(&options)?;
    let [image] = images(service.read(request).await?, ["file"]).await?;
    let seen = service.faces(image, &options).await?;
    let (seen, found) = service
        .computing(move |service| {
            // Where a threshold decides, it is one of faces that were measured.
            let decides = service.people.threshold(of).is_some();
            let found = seen.iter().map(|face| match decides && service.unknowable(face).is_some() {
                true => Ok(Vec::new()),
                false => service.people.search(of, &face.embedding, most, false),
            });
            let found = found.collect::<Answer<Vec<_>>>()?;
            Ok((seen, found))
        })
        .await?;
    let one = |(seen, found): (&Seen, &Vec<Named>)| {
        let mut face = described(seen, &options)?;
        face.insert("subjects".into(), subjects(found));
        Ok(Value::Object(face))
    };
    service.answer(seen.iter().zip(&found).map(one).collect::<Answer<_>>()?, &options)
}

pub(super) async fn recognise_embeddings(
    State(service): Here,
    Extension(Collection(of)): Extension<Collection>,
    options: Options,
    request: Request,
) -> Answer<Json> {
    let most = predictions(&options)?;
    let body = json(&service.read(request).await?)?;
    let result = service
        .computing(move |service| {
            let one = |(values, face): (Value, Embedding)| {
                let found = service.people.search(of, &face, most, false)?;
                Ok(json!({ "embedding": values, "similarities": subjects(&found) }))
            };
            service.brought(body.get("embeddings"), 1)?.into_iter().map(one).collect::<Answer<Value>>()
        })
        .await?;
    Ok(Json(json!({ "result": result })))
}

/// Compares every face of an image with one that is known.
pub(super) async fn verify_example(
    State(service): Here,
    Extension(Collection(of)): Extension<Collection>,
    Path(text): Path<String>,
    options: Options,
    request: Request,
) -> Answer<Json> {
    let example = id(&text)?;
    let [image] = images(service.read(request).await?, ["file"]).await?;
    let (known, subject) = service.blocking(move |service| service.people.example(of, example)).await?;
    let seen = service.faces(image, &options).await?;
    let one = |seen: &Seen| {
        let mut face = described(seen, &options)?;
        face.insert("subject".into(), json!(subject));
        face.insert("similarity".into(), json!(similarity(known.similarity(&seen.embedding)?)));
        Ok(Value::Object(face))
    };
    service.answer(seen.iter().map(one).collect::<Answer<_>>()?, &options)
}

/// The similarity of embeddings to one, the most similar first.
fn compared(known: &Embedding, others: Vec<(Value, Embedding)>) -> Answer<Value> {
    let mut all = Vec::with_capacity(others.len());
    for (values, face) in others {
        all.push((known.similarity(&face)?, values));
    }
    all.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    Ok(all
        .into_iter()
        .map(|(cosine, values)| json!({ "embedding": values, "similarity": similarity(cosine) }))
        .collect())
}

pub(super) async fn verify_example_embeddings(
    State(service): Here,
    Extension(Collection(of)): Extension<Collection>,
    Path(text): Path<String>,
    request: Request,
) -> Answer<Json> {
    let example = id(&text)?;
    let body = json(&service.read(request).await?)?;
    let result = service
        .blocking(move |service| {
            let (known, _) = service.people.example(of, example)?;
            compared(&known, service.brought(body.get("embeddings"), 1)?)
        })
        .await?;
    Ok(Json(json!({ "result": result })))
}

/// Compares one face with every face of a second image.
pub(super) async fn verify(State(service): Here, options: Options, request: Request) -> Answer<Json> {
    let [source, target] = images(service.read(request).await?, ["source_image", "target_image"]).await?;
    let all = |image: Bytes| service.faces(image, &options);
    let mut source = all(source).await?;
    let (Some(source), true) = (source.pop(), source.is_empty()) else { return Err(Refusal::many_faces()) };
    let target = all(target).await?;
    let one = |seen: &Seen| {
        let mut face = described(seen, &options)?;
        face.insert("similarity".into(), json!(similarity(source.embedding.similarity(&seen.embedding)?)));
        Ok(Value::Object(face))
    };
    let mut matches = target.iter().map(one).collect::<Answer<Vec<_>>>()?;
    let of = |face: &Value| face["similarity"].as_f64().unwrap_or(0.0);
    matches.sort_by(|a, b| of(b).total_cmp(&of(a)));
    let mut result = json!({ "source_image_face": described(&source, &options)?, "face_matches": matches });
    if options.flag("status", false)? {
        result["plugins_versions"] = service.made_by();
    }
    Ok(Json(json!({ "result": [result] })))
}

pub(super) async fn verify_embeddings(State(service): Here, request: Request) -> Answer<Json> {
    let body = json(&service.read(request).await?)?;
    let source = service.embedding(body.get("source").unwrap_or(&Value::Null))?;
    let result = compared(&source, service.brought(body.get("targets"), 1)?)?;
    Ok(Json(json!({ "result": result })))
}

pub(super) async fn detect(State(service): Here, options: Options, request: Request) -> Answer<Json> {
    let [image] = images(service.read(request).await?, ["file"]).await?;
    let seen = service.faces(image, &options).await?;
    let faces = seen.iter().map(|seen| described(seen, &options).map(Value::Object)).collect::<Answer<_>>()?;
    service.answer(faces, &options)
}
