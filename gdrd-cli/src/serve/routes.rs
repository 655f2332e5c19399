//! The addresses of the service.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{MethodRouter, on};
use axum::{Router, routing};

use super::refusal::Refusal;
use super::service::{Service, guard};
use super::{examples, metrics, page, recognise, subjects};

/// Addresses with what answers them.
struct Table {
    router: Router<Arc<Service>>,
    /// Method and address of each, for the document.
    listed: Vec<(Method, &'static str)>,
}

impl Table {
    fn new() -> Self {
        Self { router: Router::new(), listed: Vec::new() }
    }

    fn add(
        &mut self,
        method: Method,
        path: &'static str,
        answer: fn(routing::MethodFilter) -> MethodRouter<Arc<Service>>,
    ) {
        if let Ok(filter) = routing::MethodFilter::try_from(method.clone()) {
            self.router = std::mem::take(&mut self.router).route(path, answer(filter));
            self.listed.push((method, path));
        }
    }
}

/// The addresses that need a key.
fn with_key() -> Table {
    let mut table = Table::new();
    table.add(Method::GET, "/api/v1/recognition/subjects", |m| on(m, subjects::list));
    table.add(Method::POST, "/api/v1/recognition/subjects", |m| on(m, subjects::add));
    table.add(Method::DELETE, "/api/v1/recognition/subjects", |m| on(m, subjects::delete_all));
    table.add(Method::PUT, "/api/v1/recognition/subjects/{subject}", |m| on(m, subjects::rename));
    table.add(Method::DELETE, "/api/v1/recognition/subjects/{subject}", |m| on(m, subjects::delete));
    table.add(Method::GET, "/api/v1/recognition/faces", |m| on(m, examples::list));
    table.add(Method::POST, "/api/v1/recognition/faces", |m| on(m, examples::add));
    table.add(Method::DELETE, "/api/v1/recognition/faces", |m| on(m, examples::delete_of_subject));
    table.add(Method::POST, "/api/v1/recognition/faces/delete", |m| on(m, examples::delete_many));
    table.add(Method::DELETE, "/api/v1/recognition/faces/{image_id}", |m| on(m, examples::delete));
    table.add(Method::GET, "/api/v1/recognition/faces/{image_id}/img", |m| on(m, examples::image));
    table.add(Method::POST, "/api/v1/recognition/faces/{image_id}/verify", |m| on(m, recognise::verify_example));
    table.add(Method::POST, "/api/v1/recognition/recognize", |m| on(m, recognise::recognise));
    table.add(Method::POST, "/api/v1/recognition/embeddings/recognize", |m| on(m, recognise::recognise_embeddings));
    table.add(Method::POST, "/api/v1/recognition/embeddings/faces/{image_id}/verify", |m| {
        on(m, recognise::verify_example_embeddings)
    });
    table.add(Method::POST, "/api/v1/verification/verify", |m| on(m, recognise::verify));
    table.add(Method::POST, "/api/v1/verification/embeddings/verify", |m| on(m, recognise::verify_embeddings));
    table.add(Method::POST, "/api/v1/detection/detect", |m| on(m, recognise::detect));
    table.add(Method::GET, "/api/gdrd/about", |m| on(m, page::about));
    table.add(Method::PUT, "/api/gdrd/threshold", |m| on(m, page::set_threshold));
    table.add(Method::POST, "/api/gdrd/look", |m| on(m, page::look));
    table.add(Method::GET, "/api/gdrd/faces/{image_id}/small", |m| on(m, examples::small_image));
    table
}

/// The addresses that need none, or have it in them.
fn without_key() -> Table {
    let mut table = Table::new();
    table.add(Method::GET, "/api/v1/static/{key}/images/{image_id}", |m| on(m, examples::static_image));
    table.add(Method::GET, "/openapi.json", |m| on(m, page::openapi));
    table.add(Method::GET, "/metrics", |m| on(m, page::metrics));
    table.add(Method::GET, "/", |m| on(m, page::html));
    table.add(Method::GET, "/page.css", |m| on(m, page::style));
    table.add(Method::GET, "/page.js", |m| on(m, page::script));
    table
}

/// The whole service.
pub(super) fn router(service: Arc<Service>) -> Router {
    let guarded = with_key().router.route_layer(from_fn_with_state(service.clone(), guard));
    guarded
        .merge(without_key().router)
        .fallback(async || Refusal::no_such_path())
        .method_not_allowed_fallback(async || Refusal::no_such_method())
        // What is read of a body, `Service::read` bounds.
        .layer(DefaultBodyLimit::disable())
        .layer(map_response(headers))
        .layer(from_fn_with_state(service.clone(), metrics::count))
        .with_state(service)
}

/// What every answer says to browsers: nothing of it is kept or put into another page, and images are no programs.
async fn headers(mut response: Response) -> Response {
    const CONTENT: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                           connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'";
    let headers = response.headers_mut();
    let all: [(HeaderName, &'static str); 4] = [
        (header::CONTENT_SECURITY_POLICY, CONTENT),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in all {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_has_every_address_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(page::OPENAPI).expect("JSON");
        let mut described = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, about) in methods.as_object().expect("methods") {
                described.insert((method.to_uppercase(), path.clone()));
                let parameters: BTreeSet<&str> = about["parameters"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|one| one["in"] == "path")
                    .filter_map(|one| one["name"].as_str())
                    .collect();
                let named: BTreeSet<&str> =
                    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
                assert_eq!(parameters, named, "{method} {path}");
                assert!(
                    about["responses"]["200"].is_object() || about["responses"]["201"].is_object(),
                    "{method} {path}"
                );
            }
        }
        let tables = [with_key(), without_key()];
        // What `guard` puts on every answer to a key, and nothing on others.
        for (table, expected) in tables.iter().zip([true, false]) {
            for (method, path) in &table.listed {
                let about = &document["paths"][*path][method.as_str().to_lowercase()];
                for (status, answer) in about["responses"].as_object().expect("responses") {
                    let name = answer["$ref"].as_str().and_then(|name| name.strip_prefix('#'));
                    let answer = name.map_or(answer, |name| document.pointer(name).expect("a response"));
                    assert_eq!(answer["headers"]["warning"].is_object(), expected, "{method} {path}: {status}");
                }
            }
        }
        let listed: BTreeSet<(String, String)> =
            tables.iter().flat_map(|table| &table.listed).map(|(m, path)| (m.to_string(), path.to_string())).collect();
        assert_eq!(described, listed);
        let mut methods = tables.iter().flat_map(|table| &table.listed).map(|(method, _)| method);
        assert!(methods.all(|method| metrics::label(method) == method.as_str()), "each is counted by its name");
    }
}
