//! Students of the Hub in other people's programs: `FaceEncoder::open_hub` against a Hub on loopback.

use std::path::Path;
use std::time::Duration;

use gdrd_student::FaceEncoder;
use gdrd_student::hub::{Hub, LockedFile, Proxies, Settings, Url};
use gdrd_tests::hub_server::{Act, HubServer, commit, sha256};
use serde_json::json;

use crate::student_file::formed;

const REPOSITORY: &str = "ann/small-faces";
const ADDRESS: &str = "hf://ann/small-faces/student.safetensors";

fn hub(server: &HubServer, cache: &Path, offline: bool, refresh: bool) -> Hub {
    Hub::new(Settings {
        endpoint: Url::new(server.endpoint.as_str()),
        cache: cache.into(),
        token: None,
        offline: offline.then_some("this is a test"),
        refresh,
        proxies: Proxies::default(),
        patience: Duration::from_secs(10),
        tries: 1,
        pause: Duration::ZERO,
    })
}

#[test]
fn a_student_comes_once_is_kept_and_held_to_its_pin() {
    let (server, folder) = (HubServer::start(), tempfile::tempdir().expect("a folder"));
    let student = |embedding: usize| {
        formed("resnet-trunk", json!({"channels": [4], "blocks": [1], "strides": [2], "embedding": embedding}))
    };
    let (first, second) = (student(12), student(16));
    server.put(REPOSITORY, "main", &commit(1), "student.safetensors", &first);
    let open = |offline: bool, refresh: bool, address: &str, pin: Option<&LockedFile>| {
        FaceEncoder::open_hub(&hub(&server, folder.path(), offline, refresh), address, pin)
    };
    let said =
        |found: Result<(FaceEncoder, LockedFile), gdrd_student::Error>| found.err().expect("refused").to_string();
    assert!(said(open(true, false, ADDRESS, None)).contains("not in the cache"));
    assert_eq!(server.requests().len(), 0, "offline is offline");
    let (encoder, pin) = open(false, false, ADDRESS, None).expect("a student");
    assert_eq!(encoder.header().card.embedding, Some(12));
    let expected = LockedFile { commit: commit(1), sha256: sha256(&first), size: first.len() as u64 };
    assert_eq!(pin, expected);
    assert!(!server.requests().is_empty());
    // The branch moves on: neither the cache nor the pin does.
    server.script(|_| Act::Honest);
    server.put(REPOSITORY, "main", &commit(2), "student.safetensors", &second);
    for (offline, pin) in [(true, None), (false, None), (true, Some(&pin)), (false, Some(&pin))] {
        assert_eq!(open(offline, false, ADDRESS, pin).expect("a student").1, expected);
    }
    assert_eq!(server.requests().len(), 0, "the cache comes first");
    let newer = open(false, true, ADDRESS, None).expect("a student");
    assert_eq!((newer.0.header().card.embedding, newer.1.commit), (Some(16), commit(2)));
    // A pin means its file, though the cache has a newer one, and from another cache too.
    assert_eq!(open(false, false, ADDRESS, Some(&pin)).expect("a student").1, expected);
    let other = tempfile::tempdir().expect("a folder");
    let again = FaceEncoder::open_hub(&hub(&server, other.path(), false, false), ADDRESS, Some(&pin));
    assert_eq!(again.expect("a student").1, expected);
    let wrong = LockedFile { sha256: sha256(&second), ..pin };
    assert!(said(open(true, false, ADDRESS, Some(&wrong))).contains("not the file that the lock names"));
    let at = format!("hf://{REPOSITORY}@{}/student.safetensors", commit(2));
    assert_eq!(open(true, false, &at, None).expect("a student").1.sha256, sha256(&second));
}
