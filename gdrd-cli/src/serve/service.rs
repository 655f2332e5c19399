//! What all handlers share, and what stands before them: keys, and the number of requests at once.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use gdrd_student::FaceEncoder;
use tokio::sync::{Semaphore, oneshot};

use super::body::{Bounds, Options, drain, read};
use super::look::{Job, Seen, Task, Wanted};
use super::metrics::Metrics;
use super::people::People;
use super::refusal::Refusal;
use super::store::Key;

pub(super) type Answer<T> = std::result::Result<T, Refusal>;

/// The header of a key.
pub(super) const KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What every answer to a key says while it is so: deletions do not wait for a backup that is away.
const UNREACHED: HeaderValue =
    HeaderValue::from_static("199 gdrd \"people who were deleted are still in a backup that could not be reached\"");

/// What all handlers share.
pub(super) struct Service {
    pub(super) people: People,
    pub(super) encoder: Arc<FaceEncoder>,
    pub(super) keys: Vec<Key>,
    pub(super) tasks: Sender<Task>,
    pub(super) bounds: Bounds,
    /// Requests that may begin.
    pub(super) room: Semaphore,
    pub(super) keeps_images: bool,
    /// The name of the detector; none without one.
    pub(super) detector: Option<String>,
    /// The score of a face from which on it is one, unless a request says another.
    pub(super) score: f32,
    pub(super) metrics: Metrics,
}

/// The collection that a request's key belongs to.
#[derive(Clone, Copy)]
pub(super) struct Collection(pub(super) i64);

impl Service {
    /// The collection of a key. Every key is looked at, so that the time says nothing.
    pub(super) fn collection(&self, key: &str) -> Option<i64> {
        let mine = self.keys.iter().filter(|known| known.is(key));
        mine.map(|known| known.collection).fold(None, |_, collection| Some(collection))
    }

    /// The faces of an image.
    pub(super) async fn look(&self, wanted: Wanted) -> Answer<Vec<Seen>> {
        let (answer, seen) = oneshot::channel();
        self.tasks.send(Task::Look(Job { wanted, answer })).map_err(|_| Refusal::busy())?;
        let seen = seen.await.map_err(|_| Refusal::busy())??;
        self.metrics.faces.inc_by(seen.len() as u64);
        Ok(seen)
    }

    /// Why nobody can know whom a face shows, if it is so: it is smaller than all that the student was measured on, or shows nothing.
    pub(super) fn unknowable(&self, face: &Seen) -> Option<Refusal> {
        let least = self.encoder.header().facts.least_pixels();
        match face.pixels < least {
            true => Some(Refusal::small(face.pixels, least)),
            false => face.is_blank.then(Refusal::blank),
        }
    }

    /// The faces of an image as a request asks for them.
    pub(super) async fn faces(&self, image: Bytes, options: &Options) -> Answer<Vec<Seen>> {
        let limit = options.number("limit", 0, 0)?;
        let wanted = Wanted {
            image,
            detect: options.flag("detect_faces", true)?,
            score: options.score("det_prob_threshold", self.score)?,
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        };
        self.look(wanted).await
    }

    /// Does what the threads of the network do, such as searches.
    pub(super) async fn computing<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let (service, (answer, done)) = (self.clone(), oneshot::channel());
        let run = move || {
            // Who has gone wants no answer.
            let _ = answer.send(work(&service));
        };
        self.tasks.send(Task::Run(Box::new(run))).map_err(|_| Refusal::busy())?;
        done.await.map_err(|_| Refusal::fault("the server failed at this request"))?
    }

    /// Does what waits for the disk, on a thread for such work.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let service = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&service)).await;
        done.map_err(|_| Refusal::fault("the server failed at this request"))?
    }

    /// Reads the body of a request.
    pub(super) async fn read(&self, request: Request) -> Answer<axum::http::Request<Bytes>> {
        read(request, self.bounds).await
    }
}

/// Lets a request with a right key pass, and no more of them at once than there is room for.
pub(super) async fn guard(State(service): State<Arc<Service>>, mut request: Request, next: Next) -> Response {
    let refused = match request.headers().get(KEY).map(|key| key.to_str().unwrap_or_default()) {
        None => Refusal::no_key(),
        Some(key) if uuid::Uuid::try_parse(key).is_err() => Refusal::constraint("Service API key should be UUID"),
        Some(key) => match (service.collection(key), service.room.try_acquire()) {
            (Some(collection), Ok(_room)) => {
                request.extensions_mut().insert(Collection(collection));
                let _working = service.metrics.working();
                let mut answer = next.run(request).await;
                if service.people.unreached() {
                    answer.headers_mut().insert(header::WARNING, UNREACHED);
                }
                return answer;
            }
            (Some(_), Err(_)) => Refusal::busy(),
            (None, _) => Refusal::unknown_key(),
        },
    };
    drain(request.into_body()).await;
    refused.into_response()
}
