//! What the Hub can refuse, and what can go wrong on the way: the error says what and where, and the cache stays clean.

use gdrd_tests::Said;
use gdrd_tests::hub_server::{Act, commit, sha256};

use crate::hub::{Desk, FILE, REPOSITORY};

/// What `gdrd hub pull` says of an address that it cannot have; nothing may be in the cache afterwards.
#[track_caller]
fn refused(desk: &Desk, address: &str, environment: &[(&str, &str)]) -> String {
    let said = Said::by(desk.pull(address).envs(environment.iter().copied())).with_code(1);
    assert_eq!(said.stdout, "", "{said:#?}");
    let place = format!("error: `teacher.discriminative.weights`: {address}: ");
    assert!(said.stderr.contains(&place), "{said:#?}");
    assert!(!said.stderr.contains("panicked"), "{said:#?}");
    assert_clean(desk);
    said.stderr
}

#[track_caller]
fn assert_clean(desk: &Desk) {
    let mut left = gdrd_tests::files_below(&desk.bench.file("hf"), "");
    left.retain(|path| !path.ends_with(format!("{}.lock", sha256(&desk.bytes))));
    assert!(left.is_empty(), "{left:?}");
    assert!(!desk.snapshot(1).exists());
}

fn address() -> String {
    format!("hf://{REPOSITORY}/{FILE}")
}

#[test]
fn missing_repositories_revisions_and_files_are_told_apart() {
    let desk = Desk::new();
    let token = [("HF_TOKEN", "hf_x")];
    let text = refused(&desk, "hf://org/nothing/f", &token);
    assert!(
        text.contains("has no model `org/nothing`, or it is private (the token that was sent may not read it)"),
        "{text}"
    );
    let text = refused(&desk, "hf://spaces/org/nothing/f", &[]);
    assert!(text.contains("has no space `org/nothing`, or it is private (no token was sent; set HF_TOKEN)"), "{text}");
    let text = refused(&desk, &format!("hf://{REPOSITORY}@v9/{FILE}"), &[]);
    assert!(text.contains(&format!("the repository `{REPOSITORY}` has no revision `v9`")), "{text}");
    let text = refused(&desk, &format!("hf://{REPOSITORY}/ms1mv3_arcface_r50_fp61.pth"), &[]);
    assert!(text.contains("has no file `ms1mv3_arcface_r50_fp61.pth` at revision `main`"), "{text}");
    assert!(text.contains(&format!("did you mean `{FILE}`?")), "{text}");
}

#[test]
fn private_and_gated_repositories_say_what_to_do() {
    let desk = Desk::new();
    desk.server.change(REPOSITORY, |repository| repository.token = Some("hf_right".into()));
    let text = refused(&desk, &address(), &[]);
    assert!(text.contains("no token was sent; set HF_TOKEN"), "{text}");
    let text = refused(&desk, &address(), &[("HF_TOKEN", "hf_wrong")]);
    assert!(text.contains("knows no such token as HF_TOKEN") && !text.contains("hf_wrong"), "{text}");
    desk.server.change(REPOSITORY, |repository| repository.gated = true);
    let text = refused(&desk, &address(), &[("HF_TOKEN", "hf_right")]);
    assert!(text.contains(&format!("is gated: accept its terms at {}/{REPOSITORY}", desk.server.endpoint)), "{text}");
    desk.server.change(REPOSITORY, |repository| repository.gated = false);
    Said::by(desk.pull_file().env("HF_TOKEN", "hf_right")).with_code(0);
    desk.assert_pulled();
}

#[test]
fn wrong_bytes_and_web_pages_are_no_weights() {
    let desk = Desk::new();
    desk.server.script(|request| if request.store { Act::Corrupt } else { Act::Honest });
    let text = refused(&desk, &address(), &[]);
    assert!(text.contains(&format!("the bytes are wrong: expected sha256 {}, found ", sha256(&desk.bytes))), "{text}");
    assert_eq!(desk.server.downloads().len(), 2, "once more, in case it was chance");
    let page = || {
        Act::Answer(200, vec![("Content-Type", "text/html; charset=utf-8".into())], b"<html>Sign in</html>".to_vec())
    };
    desk.server.script(move |request| if request.store { page() } else { Act::Honest });
    let text = refused(&desk, &address(), &[]);
    assert!(text.contains("a web page came in the place of the file"), "{text}");
    desk.server.script(move |_| page());
    let text = refused(&desk, &address(), &[]);
    assert!(
        text.contains("does not answer as a Hub does: 200 without X-Repo-Commit, ETag, but with a web page"),
        "{text}"
    );
    desk.server
        .script(|request| if request.store { Act::Answer(200, Vec::new(), b"short".to_vec()) } else { Act::Honest });
    let said = Said::by(&mut desk.pull_file()).with_code(1);
    assert!(said.stderr.contains("expected 3000000 bytes, the server announces 5; given up"), "{said:#?}");
}

#[test]
fn a_hub_that_stays_away_is_given_up() {
    let desk = Desk::new();
    desk.server.script(|_| Act::Answer(502, Vec::new(), Vec::new()));
    let text = refused(&desk, &address(), &[]);
    assert!(text.contains("answered 502; given up after several tries"), "{text}");
    assert_eq!(desk.server.requests().len(), 5);
    // A port that nobody listens at.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let text = refused(&desk, &address(), &[("HF_ENDPOINT", &endpoint)]);
    assert!(text.contains("no answer from 127.0.0.1: "), "{text}");
    let said = Said::by(desk.pull_file().env("HF_ENDPOINT", "huggingface.co")).with_code(1);
    assert!(said.stderr.contains("HF_ENDPOINT is `huggingface.co`, expected https://HOST"), "{said:#?}");
}

#[test]
fn without_network_the_error_says_who_forbids_it() {
    let desk = Desk::new();
    let text = refused(&desk, &address(), &[("HF_HUB_OFFLINE", "1")]);
    assert!(text.contains("not in the cache `") && text.contains("and HF_HUB_OFFLINE is set"), "{text}");
    assert_eq!(desk.server.requests().len(), 0);
    // A commit of one file is no cache of another.
    Said::by(&mut desk.pull_file()).with_code(0);
    let pinned = format!("hf://{REPOSITORY}@{}/{FILE}", commit(2));
    let said = Said::by(desk.pull(&pinned).env("HF_HUB_OFFLINE", "YES")).with_code(1);
    assert!(said.stderr.contains("not in the cache"), "{said:#?}");
}

#[test]
fn a_cache_without_references_has_what_it_has() {
    let desk = Desk::new();
    Said::by(&mut desk.pull_file()).with_code(0);
    std::fs::remove_dir_all(desk.cache().join("refs")).expect("removed");
    let offline = |address: &str| Said::by(desk.pull(address).env("HF_HUB_OFFLINE", "1"));
    let said = offline(&address()).with_code(0);
    assert!(said.stdout.contains(&commit(1)), "{said:#?}");
    assert!(said.stderr.contains(&format!("taking {}, the only one that is there", commit(1))), "{said:#?}");
    offline(&format!("hf://{REPOSITORY}@{}/{FILE}", commit(1))).with_code(0);
    // Nobody knows what another branch stood for, or which of two commits is meant.
    let said = offline(&format!("hf://{REPOSITORY}@v1/{FILE}")).with_code(1);
    assert!(said.stderr.contains(&format!("it is there at commit {};", commit(1))), "{said:#?}");
    let other = desk.cache().join("snapshots").join(commit(2));
    std::fs::create_dir_all(&other).expect("a folder");
    std::fs::copy(desk.snapshot(1), other.join(FILE)).expect("a copy");
    let said = offline(&address()).with_code(1);
    let both = format!("it is there at commit {}, {}; `@COMMIT` in the address names one", commit(1), commit(2));
    assert!(said.stderr.contains("not in the cache") && said.stderr.contains(&both), "{said:#?}");
}

#[test]
fn passwords_are_not_shown_and_wrong_settings_are_named() {
    let desk = Desk::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let with = |user: &str| format!("http://{user}@127.0.0.1:{port}");
    let text = refused(&desk, &address(), &[("HF_ENDPOINT", &with("ann:secret"))]);
    assert!(text.contains("no answer from 127.0.0.1: ") && !text.contains("secret"), "{text}");
    let text = refused(&desk, &address(), &[("HTTP_PROXY", &with("ann:secret"))]);
    let expected = format!("(through HTTP_PROXY, http://***@127.0.0.1:{port})");
    assert!(text.contains(&expected) && !text.contains("secret"), "{text}");
    let text = refused(&desk, &address(), &[("all_proxy", "ftp://ann:secret@127.0.0.1:21")]);
    assert!(
        text.contains("all_proxy is `ftp://***@127.0.0.1:21`, expected [SCHEME://]") && !text.contains("secret"),
        "{text}"
    );
    let said = Said::by(desk.pull_file().env("HF_TOKEN", "hf_\u{fc}ber")).with_code(1);
    assert!(said.stderr.contains("the token in HF_TOKEN has a character at place 4"), "{said:#?}");
    let said = Said::by(desk.pull_file().env("HF_ENDPOINT", "hf.co/ann:secret@x")).with_code(1);
    assert!(said.stderr.contains("HF_ENDPOINT is `***@x`, expected https://HOST"), "{said:#?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named() {
    let desk = Desk::new();
    std::fs::create_dir_all(desk.cache().join("blobs")).expect("a folder");
    std::os::unix::fs::symlink("/dev/full", desk.incomplete()).expect("a device without space");
    let text = refused(&desk, &address(), &[]);
    assert!(text.contains("no space for `") && text.contains("0 of 3000000 bytes were written"), "{text}");
}

#[test]
fn addresses_are_checked_before_anything_is_asked() {
    let desk = Desk::new();
    let check = |set: &str| Said::by(&mut desk.gdrd(&["check", "tiny.toml", "--set", set])).with_code(2).stderr;
    let text = check("teacher.discriminative.weights=hf://org/repository");
    assert!(text.contains("`hf://org/repository`: no file; expected hf://[datasets/|spaces/]ORG/REPOSITORY"), "{text}");
    let text = check("teacher.discriminative.weights=hf://org/repository/../../x");
    assert!(text.contains("the file's path is empty, or has an empty part or `..`"), "{text}");
    assert_eq!(desk.server.requests().len(), 0);
}
