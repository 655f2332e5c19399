//! The Hub's side of a push: a repository is made, large files go to the store, and a commit brings everything together.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Answer, LARGE, Request, State, hex, sha256};

/// Files of at least so many bytes go up in parts of so many bytes.
const IN_PARTS: usize = 20_000;

fn told(status: u16, body: &Value) -> Answer {
    Answer::of(status, vec![("Content-Type", "application/json".into())], body.to_string().as_bytes())
}

fn refused(status: u16, message: &str) -> Answer {
    told(status, &json!({ "error": message }))
}

/// The answer to a request that changes something; none if it is no such request.
pub(super) fn answer(request: &Request, state: &mut State) -> Option<Answer> {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    if request.store && request.method == "PUT" {
        let oid = path.strip_prefix("/upload/")?;
        let part = query.strip_prefix("part=").map_or(0, |part| part.parse().expect("a number"));
        state.uploads.entry(oid.to_string()).or_default().insert(part, request.body.clone());
        return Some(Answer::of(200, vec![("ETag", format!("\"part-{part}\""))], b""));
    }
    if request.method != "POST" {
        return None;
    }
    if let Some(oid) = path.strip_prefix("/complete/") {
        let said: Value = serde_json::from_slice(&request.body).expect("JSON");
        let parts = said["parts"].as_array().expect("parts");
        let good = |(at, part): (usize, &Value)| {
            part["partNumber"] == at + 1 && part["etag"] == format!("\"part-{}\"", at + 1)
        };
        let count = state.uploads.get(oid).map_or(0, BTreeMap::len);
        let whole = said["oid"] == oid && parts.len() == count && parts.iter().enumerate().all(good);
        return Some(if whole { told(200, &json!({})) } else { refused(400, "the parts are not those") });
    }
    // Everything else is for those who may write.
    let sent = request.headers.get("authorization").and_then(|sent| sent.strip_prefix("Bearer "));
    match (sent, &state.writer) {
        (None, _) => return Some(refused(401, "Invalid username or password.")),
        (Some(sent), Some(writer)) if sent != writer => {
            return Some(refused(403, "You don't have the rights to create a model under this namespace"));
        }
        _ => {}
    }
    let said = || serde_json::from_slice::<Value>(&request.body).expect("JSON");
    if path == "/api/repos/create" {
        let said = said();
        let text = |key: &str| said[key].as_str().expect("a text").to_string();
        let name = format!("{}/{}", text("organization"), text("name"));
        if state.repositories.contains_key(&name) {
            return Some(refused(409, "You already created this model repo"));
        }
        state.repositories.entry(name.clone()).or_default().private = text("visibility") == "private";
        return Some(told(200, &json!({ "url": name })));
    }
    if let Some(name) = path.strip_prefix('/').and_then(|path| path.strip_suffix(".git/info/lfs/objects/batch")) {
        state.repositories.get(name)?;
        return Some(told(200, &where_to(&said(), state)));
    }
    if path == "/verify" {
        let said = said();
        let bytes = uploaded(state, said["oid"].as_str().expect("a digest"));
        let good = bytes.is_some_and(|bytes| said["size"] == bytes.len() && said["oid"] == sha256(&bytes));
        return Some(if good { told(200, &json!({})) } else { refused(422, "the bytes are others") });
    }
    let rest = path.strip_prefix("/api/models/")?;
    if let Some(name) = rest.strip_suffix("/preupload/main") {
        state.repositories.get(name)?;
        let mode = |file: &Value| match file["size"].as_u64() {
            Some(size) if size as usize >= LARGE && !is_text(file) => "lfs",
            _ => "regular",
        };
        let said = said();
        let files = said["files"].as_array().expect("files").iter();
        let files: Vec<_> = files
            .map(|file| json!({ "path": file["path"], "uploadMode": mode(file), "shouldIgnore": false }))
            .collect();
        return Some(told(200, &json!({ "files": files })));
    }
    commit(rest.strip_suffix("/commit/main")?, &request.body, state)
}

/// The Hub keeps text in the repository itself, up to some megabytes.
fn is_text(file: &Value) -> bool {
    let sample = STANDARD.decode(file["sample"].as_str().expect("a sample")).expect("base64");
    std::str::from_utf8(&sample).is_ok()
}

/// The bytes of an upload.
fn uploaded(state: &State, oid: &str) -> Option<Vec<u8>> {
    Some(state.uploads.get(oid)?.values().flatten().copied().collect())
}

/// Git LFS's answer to `batch`.
fn where_to(said: &Value, state: &State) -> Value {
    let object = |object: &Value| {
        let (oid, size) = (object["oid"].as_str().expect("a digest"), object["size"].as_u64().expect("a size"));
        if uploaded(state, oid).is_some_and(|bytes| bytes.len() as u64 == size) {
            return json!({ "oid": oid, "size": size });
        }
        let (store, hub) = (&state.store, &state.hub);
        let mut upload = json!({ "href": format!("{store}/upload/{oid}") });
        if size as usize >= IN_PARTS {
            let mut header = serde_json::Map::from_iter([("chunk_size".to_string(), json!(IN_PARTS.to_string()))]);
            for part in 1..=(size as usize).div_ceil(IN_PARTS) {
                // With leading zeros, as the Hub writes them.
                header.insert(format!("{part:05}"), json!(format!("{store}/upload/{oid}?part={part}")));
            }
            upload = json!({ "href": format!("{hub}/complete/{oid}"), "header": header });
        }
        json!({ "oid": oid, "size": size, "actions": {
            "upload": upload, "verify": { "href": format!("{hub}/verify") },
        } })
    };
    let objects: Vec<Value> = said["objects"].as_array().expect("objects").iter().map(object).collect();
    json!({ "transfer": "basic", "objects": objects })
}

/// A commit on `main`: the files of the one before, and these.
fn commit(name: &str, body: &[u8], state: &mut State) -> Option<Answer> {
    let repository = state.repositories.get(name)?;
    let text = std::str::from_utf8(body).expect("UTF-8");
    let before = repository.revisions.get("main").cloned();
    let old = repository.files.iter().filter(|((commit, _), _)| Some(commit) == before.as_ref());
    let mut files: BTreeMap<String, Vec<u8>> = old.map(|((_, path), bytes)| (path.clone(), bytes.clone())).collect();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let value = &line["value"];
        let path = value["path"].as_str().unwrap_or_default().to_string();
        match line["key"].as_str() {
            Some("header") => assert!(value["summary"].as_str().is_some_and(|text| !text.is_empty())),
            Some("file") => {
                assert_eq!(value["encoding"], "base64");
                let bytes = STANDARD.decode(value["content"].as_str().expect("content")).expect("base64");
                files.insert(path, bytes);
            }
            Some("lfsFile") => match uploaded(state, value["oid"].as_str().expect("a digest")) {
                Some(bytes) if value["size"] == bytes.len() && value["oid"] == sha256(&bytes) => {
                    files.insert(path, bytes);
                }
                _ => return Some(refused(422, "a file of the commit was not uploaded")),
            },
            other => panic!("an operation {other:?}"),
        }
    }
    let oid = hex(&sha1::Digest::finalize(sha1::Digest::chain_update(sha1::Sha1::default(), text)));
    let repository = state.repositories.get_mut(name)?;
    repository.revisions.insert("main".into(), oid.clone());
    repository.files.extend(files.into_iter().map(|(path, bytes)| ((oid.clone(), path), bytes)));
    Some(told(200, &json!({ "commitUrl": format!("{}/{name}/commit/{oid}", state.hub), "commitOid": oid })))
}
