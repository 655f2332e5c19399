//! `gdrd serve`, with the feature `serve` and without.

#[cfg(not(feature = "serve"))]
use gdrd_tests::{Bench, Said};

#[cfg(not(feature = "serve"))]
use crate::gdrd;

#[cfg(feature = "serve")]
mod abuse;
#[cfg(feature = "serve")]
mod files;
#[cfg(feature = "serve")]
mod requests;
#[cfg(feature = "serve")]
mod whole;

#[cfg(not(feature = "serve"))]
#[test]
fn who_lacks_the_feature_is_told_how_to_get_it() {
    let bench = Bench::empty();
    let said = Said::by(gdrd(&bench).args(["serve", "people.db", "--student", "s.safetensors"])).with_code(2);
    let expected =
        "error: `serve`: this gdrd is built without the service; `cargo build --release --features serve` builds";
    assert!(said.stderr.starts_with(expected), "{said:#?}");
    assert!(!bench.file("people.db").exists());
}

#[cfg(feature = "serve")]
mod here {
    use std::path::{Path, PathBuf};

    use gdrd_tests::service::{Client, Server};
    use gdrd_tests::{Bench, root};

    pub(super) const ROOT: &str = "/api/v1/recognition";

    pub(super) fn program() -> &'static Path {
        Path::new(env!("CARGO_BIN_EXE_gdrd-under-test"))
    }

    pub(super) fn student() -> PathBuf {
        root().join("tests/files/student-format-1.safetensors")
    }

    /// Starts a server on `people.db`, with more arguments.
    pub(super) fn started(bench: &Bench, more: &[&str]) -> Result<Server, String> {
        let student = student();
        let mut arguments = vec!["people.db", "--student", student.to_str().expect("UTF-8")];
        arguments.extend(more);
        Server::start(program(), bench.path(), &arguments)
    }

    /// A new database with its server, and a client that has its key.
    pub(super) fn begun(more: &[&str]) -> (Bench, Server, Client) {
        let bench = Bench::empty();
        let server = started(&bench, more).unwrap_or_else(|said| panic!("{said}"));
        let client = server.client(server.key.as_deref().expect("a key"));
        (bench, server, client)
    }
}
