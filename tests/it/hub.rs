//! Files of the Hub: the real client, through `HF_ENDPOINT`, against a Hub on loopback.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gdrd_core::student::StudentHeader;
use gdrd_tests::hub_server::{Act, HubServer, commit, sha256, socks};
use gdrd_tests::{Bench, Said, TINY, files_below};

use crate::gdrd;

/// The repository and the file of most tests.
pub(crate) const REPOSITORY: &str = "lithiumice/ArcFace_PyTorch";
pub(crate) const FILE: &str = "ms1mv3_arcface_r50_fp16.pth";

/// A bench with `tiny.toml`, a Hub, and a cache of its own.
pub(crate) struct Desk {
    pub(crate) bench: Bench,
    pub(crate) server: HubServer,
    pub(crate) bytes: Vec<u8>,
}

impl Desk {
    /// With one large file at `main`.
    pub(crate) fn new() -> Self {
        let (bench, server) = (Bench::empty(), HubServer::start());
        bench.write("tiny.toml", TINY);
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        server.put(REPOSITORY, "main", &commit(1), FILE, &bytes);
        Self { bench, server, bytes }
    }

    /// `gdrd` with these arguments, and nothing of this machine's own settings.
    pub(crate) fn gdrd(&self, arguments: &[&str]) -> Command {
        let mut command = gdrd(&self.bench);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HF_") || name.starts_with("HUGGING")) {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", &self.server.endpoint).env("HF_HOME", self.bench.file("hf")).args(arguments);
        command
    }

    /// `gdrd hub pull` of one address.
    pub(crate) fn pull(&self, address: &str) -> Command {
        let mut command = self.gdrd(&["hub", "pull", "tiny.toml"]);
        command.args(["--set", &format!("teacher.discriminative.weights={address}")]);
        command
    }

    pub(crate) fn pull_file(&self) -> Command {
        self.pull(&format!("hf://{REPOSITORY}/{FILE}"))
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.bench.file("hf/hub").join(format!("models--{}", REPOSITORY.replace('/', "--")))
    }

    /// Where the Python client would look.
    pub(crate) fn snapshot(&self, number: u8) -> PathBuf {
        self.cache().join("snapshots").join(commit(number)).join(FILE)
    }

    pub(crate) fn incomplete(&self) -> PathBuf {
        self.cache().join("blobs").join(format!("{}.incomplete", sha256(&self.bytes)))
    }

    #[track_caller]
    pub(crate) fn assert_pulled(&self) {
        assert!(std::fs::read(self.snapshot(1)).expect("a snapshot") == self.bytes, "other bytes");
        assert_eq!(self.half_files(), Vec::<PathBuf>::new());
    }

    pub(crate) fn half_files(&self) -> Vec<PathBuf> {
        files_below(&self.bench.file("hf"), ".incomplete")
    }
}

/// Waits until something is true.
#[track_caller]
pub(crate) fn until(what: impl Fn() -> bool) {
    let begin = Instant::now();
    while !what() {
        assert!(begin.elapsed() < Duration::from_secs(30), "waited in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_file_is_downloaded_once_into_the_layout_of_the_python_client() {
    let desk = Desk::new();
    let said = Said::by(desk.pull_file().env("HF_TOKEN", "hf_secret")).with_code(0);
    let digest = sha256(&desk.bytes);
    for part in [&commit(1), &digest, "3000000 bytes", "insightface publishes its zoo for non-commercial use"] {
        assert!(said.stdout.contains(part), "{part}: {said:#?}");
    }
    assert!(said.stderr.contains(&format!("hf://{REPOSITORY}/{FILE}: 2.86 MiB of 2.86 MiB")), "{said:#?}");
    desk.assert_pulled();
    #[cfg(unix)]
    assert_eq!(std::fs::read_link(desk.snapshot(1)).expect("a link"), Path::new("../../blobs").join(&digest));
    assert_eq!(std::fs::read_to_string(desk.cache().join("refs/main")).expect("a reference"), commit(1));
    let requests = desk.server.requests();
    assert!(
        requests.iter().any(|r| !r.store && r.headers.get("authorization").is_some_and(|h| h == "Bearer hf_secret"))
    );
    assert!(requests.iter().all(|r| !r.store || !r.headers.contains_key("authorization")), "the token is for the Hub");
    desk.server.script(|_| Act::Honest);
    Said::by(&mut desk.pull_file()).with_code(0);
    Said::by(&mut desk.gdrd(&["hub", "verify", "tiny.toml"])).with_code(0);
    assert_eq!(desk.server.requests().len(), 0, "the cache comes first");
}

#[test]
fn datasets_spaces_small_files_folders_and_new_names_are_found() {
    let desk = Desk::new();
    let large = vec![7; 5000];
    desk.server.put("spaces/OAOA/DifFace", "main", &commit(2), "weights/diffusion/a b.pth", &large);
    desk.server.put("datasets/org/faces", "refs/pr/3", &commit(3), "deep/er/pairs.txt", b"10 300\n");
    desk.server.rename("old/name", REPOSITORY);
    let cases = [
        (
            "hf://spaces/OAOA/DifFace/weights/diffusion/a b.pth",
            "spaces--OAOA--DifFace",
            2,
            "weights/diffusion/a b.pth",
            &large[..],
        ),
        (
            "hf://datasets/org/faces@refs%2Fpr%2F3/deep/er/pairs.txt",
            "datasets--org--faces",
            3,
            "deep/er/pairs.txt",
            b"10 300\n",
        ),
        (
            "hf://datasets/org/faces@refs/pr/3/deep/er/pairs.txt",
            "datasets--org--faces",
            3,
            "deep/er/pairs.txt",
            b"10 300\n",
        ),
        ("hf://old/name/ms1mv3_arcface_r50_fp16.pth", "models--old--name", 1, FILE, &desk.bytes[..]),
    ];
    for (address, folder, number, path, bytes) in cases {
        let said = Said::by(&mut desk.pull(address)).with_code(0);
        assert!(said.stdout.contains(&address.replace("refs/pr/", "refs%2Fpr%2F")), "{said:#?}");
        let file = desk.bench.file("hf/hub").join(folder).join("snapshots").join(commit(number)).join(path);
        assert!(std::fs::read(&file).expect("a file") == bytes, "{}", file.display());
        #[cfg(unix)]
        assert!(std::fs::read_link(&file).expect("a link").is_relative());
    }
    // Git's digest names the blob of a small file, as in the Python client's cache.
    let small = desk.bench.file("hf/hub/datasets--org--faces");
    let blobs = files_below(&small.join("blobs"), "");
    assert_eq!(blobs[0].file_name().expect("a name").len(), 40, "{blobs:?}");
    assert_eq!(std::fs::read_to_string(small.join("refs/refs/pr/3")).expect("a reference"), commit(3));
}

#[test]
fn a_process_that_is_killed_halfway_leaves_what_the_next_goes_on_with() {
    let desk = Desk::new();
    desk.server.script(|request| if request.store { Act::Stall(1_000_000) } else { Act::Honest });
    let mut child = desk.pull_file().stderr(Stdio::null()).spawn().expect("started");
    until(|| std::fs::metadata(desk.incomplete()).is_ok_and(|file| file.len() == 1_000_000));
    child.kill().expect("killed");
    child.wait().expect("ended");
    desk.server.script(|_| Act::Honest);
    Said::by(&mut desk.pull_file()).with_code(0);
    let ranges: Vec<_> = desk.server.downloads().iter().map(|r| r.headers.get("range").cloned()).collect();
    assert_eq!(ranges, [Some("bytes=1000000-".to_string())]);
    desk.assert_pulled();
}

#[test]
fn bodies_cut_short_silence_and_busy_servers_are_tried_again() {
    let desk = Desk::new();
    desk.server.script(|request| match (request.store, request.method.as_str(), request.earlier) {
        (false, "HEAD", 0) => Act::Answer(503, Vec::new(), Vec::new()),
        (false, "HEAD", 1) => Act::Answer(429, vec![("Retry-After", "1".into())], Vec::new()),
        (true, _, 0) => Act::Cut(1_200_000),
        (true, _, 1) => Act::Answer(500, Vec::new(), b"oops".to_vec()),
        (true, _, 2) => Act::Stall(800_000),
        // An address whose signature has run out.
        (true, _, 3) => Act::Answer(403, Vec::new(), Vec::new()),
        _ => Act::Honest,
    });
    let begin = Instant::now();
    let said = Said::by(desk.pull_file().env("HF_HUB_DOWNLOAD_TIMEOUT", "1")).with_code(0);
    assert!(begin.elapsed() > Duration::from_secs(2), "a second for Retry-After, a second of silence");
    for part in
        ["answered 503", "answered 429", "trying again in 1.0 s", "1200000 of 3000000 bytes are here", "answered 500"]
    {
        assert!(said.stderr.contains(part), "{part}: {said:#?}");
    }
    let ranges: Vec<_> = desk.server.downloads().iter().map(|r| r.headers.get("range").cloned()).collect();
    let range = |from: u32| Some(format!("bytes={from}-"));
    assert_eq!(ranges, [None, range(1_200_000), range(1_200_000), range(2_000_000), range(2_000_000)]);
    desk.assert_pulled();
}

#[test]
fn a_slow_server_is_waited_for_and_one_without_ranges_begins_again() {
    let desk = Desk::new();
    desk.server.script(|request| match (request.store, request.earlier) {
        (true, 0) => Act::Cut(500_000),
        (true, 1) => Act::NoRanges,
        _ => Act::Honest,
    });
    Said::by(&mut desk.pull_file()).with_code(0);
    desk.assert_pulled();
    std::fs::remove_dir_all(desk.cache()).expect("removed");
    desk.server.script(|request| if request.store { Act::Slow(6, Duration::from_millis(300)) } else { Act::Honest });
    let said = Said::by(desk.pull_file().env("HF_HUB_DOWNLOAD_TIMEOUT", "1")).with_code(0);
    assert!(!said.stderr.contains("trying again"), "{said:#?}");
    assert_eq!(desk.server.downloads().len(), 1);
    desk.assert_pulled();
}

#[test]
fn two_processes_download_a_file_once() {
    let desk = Desk::new();
    desk.server.script(|request| if request.store { Act::Slow(5, Duration::from_millis(200)) } else { Act::Honest });
    let start = || desk.pull_file().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let children = [start(), start()];
    for child in children {
        let said = Said::from(child.wait_with_output().expect("ended")).with_code(0);
        assert!(said.stdout.contains(&sha256(&desk.bytes)), "{said:#?}");
    }
    assert_eq!(desk.server.downloads().len(), 1);
    desk.assert_pulled();
}

#[test]
fn wrong_bytes_of_an_earlier_try_are_replaced_and_damage_in_the_cache_too() {
    let desk = Desk::new();
    std::fs::create_dir_all(desk.cache().join("blobs")).expect("a folder");
    std::fs::write(desk.incomplete(), vec![1; 4096]).expect("bytes of something else");
    let said = Said::by(&mut desk.pull_file()).with_code(0);
    assert!(said.stderr.contains("the bytes are wrong: expected sha256"), "{said:#?}");
    desk.assert_pulled();
    let blob = desk.cache().join("blobs").join(sha256(&desk.bytes));
    std::fs::write(&blob, &desk.bytes[..99]).expect("damaged");
    let address = format!("teacher.discriminative.weights=hf://{REPOSITORY}/{FILE}");
    let verify = ["hub", "verify", "tiny.toml", "--set", &address];
    let said = Said::by(&mut desk.gdrd(&verify)).with_code(1);
    assert!(said.stderr.contains(&format!("is damaged: expected sha256 {}, found ", sha256(&desk.bytes))), "{said:#?}");
    let said = Said::by(&mut desk.pull_file()).with_code(0);
    assert!(said.stderr.contains("is damaged") && said.stderr.contains("downloading it again"), "{said:#?}");
    desk.assert_pulled();
    Said::by(&mut desk.gdrd(&verify)).with_code(0);
}

#[test]
fn branches_move_only_when_they_are_asked_for() {
    let desk = Desk::new();
    Said::by(&mut desk.pull_file()).with_code(0);
    desk.server.put(REPOSITORY, "main", &commit(9), FILE, &[9; 2000]);
    let said = Said::by(&mut desk.pull_file()).with_code(0);
    assert!(said.stdout.contains(&commit(1)), "{said:#?}");
    let said = Said::by(desk.pull_file().arg("--refresh")).with_code(0);
    assert!(said.stdout.contains(&commit(9)), "{said:#?}");
    let pinned = format!("teacher.discriminative.revision={}", commit(1));
    let said = Said::by(desk.pull_file().args(["--set", &pinned])).with_code(0);
    assert!(said.stdout.contains(&commit(1)) && said.stdout.contains(&format!("@{}/", commit(1))), "{said:#?}");
}

#[test]
fn the_proxy_of_the_environment_is_used_unless_the_host_is_spared() {
    let desk = Desk::new();
    let proxied = |command: &mut Command| {
        command.env("HF_ENDPOINT", "http://hub.invalid").env("http_proxy", &desk.server.endpoint);
        Said::by(command)
    };
    // The store is spared, so that the Hub alone is behind the proxy.
    let said = proxied(desk.pull_file().env("NO_PROXY", "127.0.0.1"));
    assert_eq!(said.code, Some(0), "{said:#?}");
    desk.assert_pulled();
    std::fs::remove_dir_all(desk.cache()).expect("removed");
    let said = proxied(desk.pull_file().env("no_proxy", "127.0.0.1,.invalid")).with_code(1);
    assert!(said.stderr.contains("no answer from hub.invalid"), "{said:#?}");
}

#[test]
fn a_socks_proxy_is_used() {
    for variable in ["ALL_PROXY", "http_proxy"] {
        let desk = Desk::new();
        let port = socks(desk.server.endpoint.trim_start_matches("http://").to_string());
        let mut command = desk.pull_file();
        command.env("HF_ENDPOINT", "http://hub.invalid").env("NO_PROXY", "127.0.0.1");
        Said::by(command.env(variable, format!("socks5h://127.0.0.1:{port}"))).with_code(0);
        desk.assert_pulled();
    }
}

#[test]
fn a_run_with_teachers_from_the_hub_is_locked_repeated_offline_and_says_their_licence() {
    let trained = Bench::with_teachers();
    let desk = Desk::new();
    let bytes = |name: &str| std::fs::read(trained.file(&format!("teachers/{name}.safetensors"))).expect("a teacher");
    desk.server.put("fal/AuraFace-v1", "v1", &commit(4), "glintr100.onnx", &bytes("discriminative"));
    desk.server.put("spaces/o/g", "main", &commit(5), "g.safetensors", &bytes("generative"));
    let sets = [
        "--set=teacher.discriminative={ kind = \"student\", weights = \"hf://fal/AuraFace-v1/glintr100.onnx\", revision = \"v1\" }",
        "--set=teacher.generative.weights=hf://spaces/o/g/g.safetensors",
    ];
    let train = |more: &[&str]| desk.gdrd(&[&["train", "tiny.toml"], &sets[..], more].concat());
    let said = Said::by(&mut train(&["--run-dir=runs/offline", "--offline"])).with_code(1);
    assert!(said.stderr.contains("teacher `discriminative`: hf://fal/AuraFace-v1@v1/glintr100.onnx: not in the cache"));
    assert!(said.stderr.contains("`--offline` forbids the network"), "{said:#?}");
    assert_eq!(desk.server.requests().len(), 0);
    Said::by(&mut train(&["--run-dir=runs/one"])).with_code(0);
    let lock: serde_json::Value =
        serde_json::from_slice(&std::fs::read(desk.bench.file("runs/one/lock.json")).expect("a lock")).expect("JSON");
    let expected = serde_json::json!({
        "hf://fal/AuraFace-v1@v1/glintr100.onnx":
            { "commit": commit(4), "sha256": sha256(&bytes("discriminative")), "size": bytes("discriminative").len() },
        "hf://spaces/o/g/g.safetensors":
            { "commit": commit(5), "sha256": sha256(&bytes("generative")), "size": bytes("generative").len() },
    });
    assert_eq!(lock["files"], expected);
    let student = std::fs::read(desk.bench.file("runs/one/student.safetensors")).expect("a student");
    let licences: BTreeMap<String, String> = StudentHeader::from_bytes(&student).expect("a student").0.licences;
    let known = &licences["discriminative"];
    assert!(
        known.starts_with(&format!("hf://fal/AuraFace-v1@v1/glintr100.onnx at commit {}: apache-2.0; ", commit(4))),
        "{known}"
    );
    assert!(licences["generative"].ends_with("licence not known to gdrd"), "{licences:?}");
    let report = std::fs::read_to_string(desk.bench.file("runs/one/report.md")).expect("a report");
    assert!(report.contains(&format!("commit `{}`", commit(5))) && report.contains("licence: apache-2.0"), "{report}");
    // The resolved recipe says where the files come from, not where they are.
    let resolved = std::fs::read_to_string(desk.bench.file("runs/one/recipe.resolved.toml")).expect("a recipe");
    assert!(resolved.contains("weights = \"hf://fal/AuraFace-v1@v1/glintr100.onnx\""), "{resolved}");
    // The network is not needed any more, and both branches may move.
    desk.server.put("spaces/o/g", "main", &commit(6), "g.safetensors", &[0; 4000]);
    desk.server.script(|_| Act::Answer(500, Vec::new(), Vec::new()));
    let again = ["train", "runs/one/recipe.resolved.toml", "--run-dir=runs/two", "--lock=runs/one/lock.json"];
    Said::by(desk.gdrd(&again).env("HF_HUB_OFFLINE", "1")).with_code(0);
    assert_eq!(desk.server.requests().len(), 0);
    let second = std::fs::read(desk.bench.file("runs/two/student.safetensors")).expect("a student");
    assert!(second == student, "the same bytes make the same student");
    refuses_other_bytes(&desk, &sets);
}

/// A lock holds a later run, and a resumed one, to its bytes.
fn refuses_other_bytes(desk: &Desk, sets: &[&str]) {
    desk.server.script(|_| Act::Honest);
    let path = desk.bench.file("runs/one/lock.json");
    let text = std::fs::read_to_string(&path).expect("a lock");
    let locked: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let digest = locked["files"]["hf://spaces/o/g/g.safetensors"]["sha256"].as_str().expect("a digest").to_string();
    std::fs::write(&path, text.replace(&digest, &"0".repeat(64))).expect("another lock");
    std::fs::remove_file(desk.bench.file("runs/one/report.md")).expect("an unfinished run");
    let train = [&["train", "tiny.toml", "--run-dir=runs/three", "--lock=runs/one/lock.json"], sets].concat();
    let verify = [&["hub", "verify", "tiny.toml", "--lock=runs/one/lock.json"], sets].concat();
    for arguments in [&train[..], &verify, &["resume", "runs/one"]] {
        let said = Said::by(&mut desk.gdrd(arguments)).with_code(1);
        let text = &said.stderr;
        assert!(text.contains("not the file that the lock names: expected"), "{said:#?}");
        assert!(text.contains(&"0".repeat(64)) && text.contains(&digest), "{said:#?}");
    }
    assert!(!desk.bench.file("runs/three/recipe.resolved.toml").exists());
}
