//! What the server did, for Prometheus. Nothing here says who was seen.

use std::sync::atomic::AtomicU64;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::service::Service;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    method: &'static str,
    path: String,
    status: u16,
}

/// The edges of the histogram of seconds.
const SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// All counters.
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    seconds: Histogram,
    working: Gauge,
    /// Faces that were embedded.
    pub(super) faces: Counter<u64, AtomicU64>,
    subjects: Gauge,
    examples: Gauge,
}

/// A request that is worked on, until it is dropped.
pub(super) struct Working<'a>(&'a Gauge);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(super) fn new() -> Self {
        let made = Self {
            registry: Registry::with_prefix("gdrd"),
            requests: Family::default(),
            seconds: Histogram::new(SECONDS),
            working: Gauge::default(),
            faces: Counter::default(),
            subjects: Gauge::default(),
            examples: Gauge::default(),
        };
        let Self { mut registry, requests, seconds, working, faces, subjects, examples } = made;
        registry.register("requests", "Requests that were answered", requests.clone());
        registry.register_with_unit("request_duration", "Time to an answer", Unit::Seconds, seconds.clone());
        registry.register("requests_working", "Requests with a right key that are worked on", working.clone());
        registry.register("faces_embedded", "Faces that were embedded", faces.clone());
        registry.register("subjects", "Subjects of all collections", subjects.clone());
        registry.register("examples", "Faces of all subjects", examples.clone());
        Self { registry, requests, seconds, working, faces, subjects, examples }
    }

    pub(super) fn working(&self) -> Working<'_> {
        self.working.inc();
        Working(&self.working)
    }

    /// All counters as text, in the format of OpenMetrics.
    pub(super) fn text(&self, (subjects, examples): (usize, usize)) -> Result<String, std::fmt::Error> {
        self.subjects.set(subjects as i64);
        self.examples.set(examples as i64);
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// A method as it is counted. Any word is a method, and what is counted is kept: those that no address has are one.
pub(super) fn label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

/// Counts a request.
pub(super) async fn count(State(service): State<std::sync::Arc<Service>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = label(request.method());
    // A path that is not ours is one label, whatever it is.
    let path = request.extensions().get::<MatchedPath>().map_or("other", |path| path.as_str()).to_string();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    service.metrics.requests.get_or_create(&Labels { method, path, status }).inc();
    service.metrics.seconds.observe(start.elapsed().as_secs_f64());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_nobody_has_are_one_label() {
        for word in ["BREW", "get", "PATCH", "X1"] {
            assert_eq!(label(&Method::from_bytes(word.as_bytes()).expect("a method")), "other", "{word}");
        }
        assert_eq!(label(&Method::DELETE), "DELETE");
    }
}
