//! What comes with a request: the options of its address, and its body within bounds of size and time.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Multipart, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;
use uuid::Uuid;

use super::refusal::Refusal;

type Answer<T> = std::result::Result<T, Refusal>;

/// Base64 as clients write it, with padding or without.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The options of an address.
pub(super) struct Options(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Options {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let query = Query::<HashMap<String, String>>::from_request_parts(parts, state).await;
        query.map(|Query(all)| Self(all)).map_err(|e| Refusal::argument(format!("The query cannot be read: {e}")))
    }
}

impl Options {
    /// A text; none if it is missing or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.trim().is_empty())
    }

    /// A number of at least `least`, or `usual` if it is missing.
    pub(super) fn number(&self, name: &str, least: i64, usual: i64) -> Answer<i64> {
        let Some(text) = self.text(name) else { return Ok(usual) };
        let number: i64 =
            text.trim().parse().map_err(|_| Refusal::argument(format!("{name}: expected a number, found {text}")))?;
        match number >= least {
            true => Ok(number),
            false => Err(Refusal::constraint(format!("{name} should be equal or greater than {least}"))),
        }
    }

    /// A yes or no as Spring reads it, or `usual` if it is missing.
    pub(super) fn flag(&self, name: &str, usual: bool) -> Answer<bool> {
        match self.text(name).map(|text| text.trim().to_ascii_lowercase()).as_deref() {
            None => Ok(usual),
            Some("true" | "on" | "yes" | "1") => Ok(true),
            Some("false" | "off" | "no" | "0") => Ok(false),
            Some(other) => Err(Refusal::argument(format!("{name}: expected true or false, found {other}"))),
        }
    }

    /// A score from 0 to 1, or `usual` if it is missing.
    pub(super) fn score(&self, name: &str, usual: f32) -> Answer<f32> {
        let Some(text) = self.text(name) else { return Ok(usual) };
        let score = text.trim().parse().ok().filter(|score| (0.0..=1.0).contains(score));
        score.ok_or_else(|| Refusal::constraint(format!("{name}: expected 0.0 to 1.0, found {text}")))
    }

    /// Whether a comma-separated list names `plugin`.
    pub(super) fn has_plugin(&self, plugin: &str) -> bool {
        self.text("face_plugins").is_some_and(|all| all.split(',').any(|one| one.trim() == plugin))
    }
}

/// How much is read of a body, and how long.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) bytes: usize,
    pub(super) time: Duration,
}

/// Reads a body. One that is too large is read on for a while before it is refused: a client that is cut off while it writes sees a
/// broken connection, and not why.
pub(super) async fn read(request: Request, bounds: Bounds) -> Answer<Request<Bytes>> {
    let (parts, body) = request.into_parts();
    let bytes = tokio::time::timeout(bounds.time, limited(body, bounds.bytes)).await;
    Ok(Request::from_parts(parts, bytes.map_err(|_| Refusal::too_slow())??))
}

async fn limited(mut body: Body, most: usize) -> Answer<Bytes> {
    let mut bytes = Vec::new();
    let mut fits = body.size_hint().lower() <= most as u64;
    while fits && let Some(piece) = next(&mut body).await {
        let piece = piece.map_err(|_| Refusal::argument("The body ended before it was complete"))?;
        fits = bytes.len() + piece.len() <= most;
        if fits {
            bytes.extend_from_slice(&piece);
        }
    }
    if !fits {
        drain(body).await;
        return Err(Refusal::too_large(most >> 20));
    }
    Ok(bytes.into())
}

/// Reads and forgets the rest of a body, for two seconds or 64 MB.
pub(super) async fn drain(mut body: Body) {
    let rest = async {
        let mut left: usize = 64 << 20;
        while left > 0
            && let Some(Ok(bytes)) = next(&mut body).await
        {
            left = left.saturating_sub(bytes.len());
        }
    };
    // A client that takes longer is cut off.
    let _ = tokio::time::timeout(Duration::from_secs(2), rest).await;
}

/// The next piece of a body.
async fn next(body: &mut Body) -> Option<std::result::Result<Bytes, axum::Error>> {
    loop {
        match std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await? {
            Ok(frame) => match frame.into_data() {
                Ok(bytes) => return Some(Ok(bytes)),
                // What follows a body is no part of it.
                Err(_) => continue,
            },
            Err(error) => return Some(Err(error)),
        }
    }
}

/// A JSON body.
pub(super) fn json(request: &Request<Bytes>) -> Answer<Value> {
    serde_json::from_slice(request.body()).map_err(|e| Refusal::argument(format!("The body is no JSON: {e}")))
}

/// The images of a body, by their names: parts of a form, or Base64 in JSON.
pub(super) async fn images<const N: usize>(request: Request<Bytes>, names: [&str; N]) -> Answer<[Bytes; N]> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let found = match kind.trim_start().to_ascii_lowercase() {
        kind if kind.starts_with("multipart/form-data") => form(request, &names).await?,
        kind if kind.starts_with("application/json") => {
            let json = json(&request)?;
            let of = |name: &&str| match json.get(*name) {
                Some(Value::String(text)) => base64(text).map(|bytes| (name.to_string(), bytes)).map(Some),
                Some(_) => Err(Refusal::image("Provided value is not Base64")),
                None => Ok(None),
            };
            names.iter().filter_map(|name| of(name).transpose()).collect::<Answer<_>>()?
        }
        _ => return Err(Refusal::argument("Expected a body of type multipart/form-data or application/json")),
    };
    let mut found: HashMap<String, Bytes> = found;
    let mut all = Vec::with_capacity(N);
    for name in names {
        let bytes = found.remove(name).ok_or_else(|| Refusal::no_part(name))?;
        if bytes.is_empty() {
            return Err(Refusal::empty(name));
        }
        all.push(bytes);
    }
    all.try_into().map_err(|_| Refusal::fault("a part was lost"))
}

async fn form(request: Request<Bytes>, names: &[&str]) -> Answer<HashMap<String, Bytes>> {
    let wrong = |e: &dyn std::fmt::Display| Refusal::argument(format!("The form cannot be read: {e}"));
    let mut form = Multipart::from_request(request.map(Body::from), &()).await.map_err(|e| wrong(&e.body_text()))?;
    let mut found = HashMap::new();
    while let Some(part) = form.next_field().await.map_err(|e| wrong(&e.body_text()))? {
        let name = part.name().unwrap_or_default().to_string();
        let bytes = part.bytes().await.map_err(|e| wrong(&e.body_text()))?;
        if names.contains(&name.as_str()) {
            found.insert(name, bytes);
        }
    }
    Ok(found)
}

fn base64(text: &str) -> Answer<Bytes> {
    // Browsers write `data:image/png;base64,` in front.
    let text = match text.strip_prefix("data:") {
        Some(rest) => rest.split_once(',').map_or(rest, |(_, data)| data),
        None => text,
    };
    let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    LENIENT.decode(text).map(Bytes::from).map_err(|_| Refusal::image("Provided value is not Base64"))
}

/// The number of a face.
pub(super) fn id(text: &str) -> Answer<Uuid> {
    Uuid::try_parse(text).map_err(|_| Refusal::argument(format!("{text}: expected the UUID of an image")))
}

/// The name of a subject as CompreFace allows it.
pub(super) fn name(text: &str) -> Answer<&str> {
    let count = text.chars().count();
    if text.trim().is_empty() {
        Err(Refusal::constraint("Subject name cannot be empty"))
    } else if count > 50 {
        Err(Refusal::constraint("Subject name size must be between 1 and 50"))
    } else if text.contains([';', '/', '\\']) {
        Err(Refusal::argument("The name cannot contain the following special characters: ';', '/', '\\'"))
    } else if text.chars().any(char::is_control) {
        Err(Refusal::argument("The name must stand on one line"))
    } else {
        Ok(text)
    }
}

/// The name of a subject in a JSON body.
pub(super) fn subject(request: &Request<Bytes>) -> Answer<String> {
    let json = json(request)?;
    let name_given = json.get("subject").and_then(Value::as_str).ok_or_else(|| Refusal::empty("subject"))?;
    name(name_given).map(str::to_string)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

    use super::*;

    #[test]
    fn base64_is_read_as_clients_write_it() {
        for text in ["aGFsbG8=", "aGFsbG8", "aGFs\nbG8=", "data:image/png;base64,aGFsbG8="] {
            assert_eq!(base64(text).expect("read"), Bytes::from_static(b"hallo"), "{text}");
        }
        assert_eq!(STANDARD.encode("hallo"), "aGFsbG8=");
        assert_eq!(STANDARD_NO_PAD.encode("hallo"), "aGFsbG8");
        assert!(base64("%%%").is_err());
    }
}
