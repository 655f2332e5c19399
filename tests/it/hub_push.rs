//! A finished run put into a model repository of the Hub.

use std::process::Command;

use gdrd_tests::hub_server::{Act, HubServer};
use gdrd_tests::{Bench, Said, TINY};

use crate::gdrd;

const TOKEN: &str = "hf_writer";
const FILES: [&str; 5] = ["README.md", "lock.json", "recipe.resolved.toml", "student.onnx", "student.safetensors"];

/// A run whose recipe states some licences, and a Hub.
struct Desk {
    bench: Bench,
    server: HubServer,
}

impl Desk {
    fn new() -> Self {
        let bench = Bench::with_teachers();
        let licences =
            "\n[licences]\n\"teacher.generative\" = \"research: only\"\n\"data.train\" = \"drawn by gdrd\"\n";
        bench.write("tiny.toml", format!("{TINY}{licences}"));
        bench.train(&bench.tiny(&[]), "one");
        let server = HubServer::start();
        server.writer(TOKEN);
        Self { bench, server }
    }

    fn push(&self, more: &[&str]) -> Command {
        let mut command = gdrd(&self.bench);
        for (name, _) in std::env::vars() {
            if name.starts_with("HF_") || name.starts_with("HUGGING") || name.to_uppercase().ends_with("_PROXY") {
                command.env_remove(name);
            }
        }
        command.env("HF_ENDPOINT", &self.server.endpoint).env("HF_HOME", self.bench.file("hf"));
        command.env("HF_TOKEN", TOKEN).args(["hub", "push", "runs/one"]).args(more);
        command
    }

    #[track_caller]
    fn refused(&self, command: &mut Command) -> String {
        let said = Said::by(command).with_code(1);
        assert!(said.stdout.is_empty() && !said.stderr.contains("hf_"), "{said:#?}");
        said.stderr
    }
}

#[test]
fn a_run_becomes_a_private_repository_in_one_commit() {
    let desk = Desk::new();
    // Nothing is sent by a dry run, and everything is said before.
    let said = Said::by(&mut desk.push(&["--dry-run", "--out", "card", "--licence", "mit"])).with_code(0);
    assert_eq!(desk.server.requests().len(), 0);
    for part in [
        "student.safetensors, ",
        "teacher `discriminative`: not stated, so that nothing is allowed",
        "teacher `generative`: research: only (stated by the recipe)",
        "dataset `train` (drawn by gdrd): drawn by gdrd",
        "a licence of a dataset or a teacher may forbid",
    ] {
        assert!(said.stderr.contains(part), "{part}: {said:#?}");
    }
    for name in FILES {
        assert!(desk.bench.file("card").join(name).is_file(), "{name}: {said:#?}");
    }
    let said = Said::by(&mut desk.push(&["--to", "ann/small-faces", "--licence", "mit"])).with_code(0);
    assert!(said.stdout.contains(&format!("{}/ann/small-faces at commit ", desk.server.endpoint)), "{said:#?}");
    assert!(said.stdout.ends_with(", private\n"), "{said:#?}");
    let files = desk.server.files("ann/small-faces");
    assert_eq!(files.keys().map(String::as_str).collect::<Vec<_>>(), FILES);
    for name in ["lock.json", "recipe.resolved.toml", "student.safetensors"] {
        assert!(files[name] == std::fs::read(desk.bench.file("runs/one").join(name)).expect("a file"), "{name}");
    }
    let card = String::from_utf8(files["README.md"].clone()).expect("text");
    let header = "---\nlicense: \"mit\"\nlibrary_name: \"gdrd\"\n";
    assert!(card.starts_with(header) && card.contains("model-index:\n  - name: \"small-faces\"\n"), "{card}");
    let requests = desk.server.requests();
    assert!(requests.iter().any(|r| r.method == "PUT" && r.path.contains("part=2")), "the student is large");
    assert!(requests.iter().all(|r| r.store != r.headers.contains_key("authorization")), "the token is for the Hub");
    // What the store has is not sent again.
    desk.server.script(|_| Act::Honest);
    Said::by(&mut desk.push(&["--to", "ann/small-faces", "--message", "again"])).with_code(0);
    assert!(desk.server.requests().iter().all(|request| request.method != "PUT"));
    read_by_the_python_client(&desk);
}

/// With `GDRD_PYTHON`, a Python that has `huggingface_hub`, the repository is read back by it.
fn read_by_the_python_client(desk: &Desk) {
    let Some(python) = std::env::var_os("GDRD_PYTHON") else { return };
    let script = gdrd_tests::root().join("tests/golden/hub/read_back.py");
    let mut command = Command::new(python);
    command.arg(script).args(["ann/small-faces"]).arg(desk.bench.file("card")).arg(desk.bench.file("runs/one"));
    command.env("HF_ENDPOINT", &desk.server.endpoint).env("HF_HOME", desk.bench.file("python"));
    let said = Said::by(command.env("HF_TOKEN", TOKEN).env("HF_HUB_DISABLE_XET", "1")).with_code(0);
    assert!(said.stdout.contains("read back"), "{said:#?}");
}

#[test]
fn what_must_not_be_pushed_is_not() {
    let desk = Desk::new();
    let to = ["--to", "ann/faces"];
    let text = desk.refused(desk.push(&to).env_remove("HF_TOKEN"));
    assert!(text.contains("a push needs a token that may write: set HF_TOKEN"), "{text}");
    let text = desk.refused(desk.push(&to).env("HF_TOKEN", "hf_reader"));
    assert!(text.contains("answered 403: You don't have the rights") && text.contains("role `write`"), "{text}");
    let text = desk.refused(desk.push(&to).env("HF_HUB_OFFLINE", "1"));
    assert!(text.contains("a push needs the network, and HF_HUB_OFFLINE is set"), "{text}");
    for name in ["faces", "ann/two/names", "datasets/ann/faces", "ann/fa ces", "ann/faces@v1"] {
        let text = desk.refused(&mut desk.push(&["--to", name]));
        assert!(text.contains(&format!("`{name}` is no model repository; expected OWNER/NAME")), "{text}");
    }
    // A repository that everybody may read is filled only if that is meant.
    Said::by(&mut desk.push(&["--to", "ann/open", "--public"])).with_code(0);
    desk.server.script(|_| Act::Honest);
    let text = desk.refused(&mut desk.push(&["--to", "ann/open"]));
    assert!(text.contains("everybody may read `ann/open`, and nothing was put into it; `--public`"), "{text}");
    assert!(desk.server.requests().iter().all(|request| !request.path.contains("preupload")));
    let text = Said::by(&mut desk.push(&["--dry-run", "--out", "runs/one"])).with_code(2).stderr;
    assert!(text.contains("would be overwritten, and no repository of gdrd is known to have written it"), "{text}");
    // A run that was altered.
    let recipe = desk.bench.file("runs/one/recipe.resolved.toml");
    let text = std::fs::read_to_string(&recipe).expect("a recipe");
    std::fs::write(&recipe, format!("{text}\n# mine\n")).expect("written");
    let text = desk.refused(&mut desk.push(&to));
    assert!(text.contains("`runs/one` is not what its run has written: recipe.resolved.toml"), "{text}");
}

#[test]
fn busy_servers_are_asked_again_but_a_commit_is_not_made_twice() {
    let desk = Desk::new();
    desk.server.script(|request| match (request.store, request.method.as_str(), request.earlier) {
        (false, "POST", 0) => Act::Answer(503, Vec::new(), Vec::new()),
        (true, "PUT", 1) => Act::Answer(500, Vec::new(), Vec::new()),
        _ => Act::Honest,
    });
    let said = Said::by(&mut desk.push(&["--to", "ann/faces"])).with_code(0);
    for part in ["make the repository: the server answered 503; trying again", "the server answered 500; trying again"]
    {
        assert!(said.stderr.contains(part), "{part}: {said:#?}");
    }
    assert_eq!(desk.server.files("ann/faces").len(), FILES.len());
    desk.server.script(|request| match request.path.contains("/commit/") {
        true => Act::Answer(503, Vec::new(), Vec::new()),
        false => Act::Honest,
    });
    let text = desk.refused(&mut desk.push(&["--to", "ann/faces"]));
    assert!(text.contains("was asked to commit and answered 503"), "{text}");
    assert_eq!(desk.server.requests().iter().filter(|request| request.path.contains("/commit/")).count(), 1);
}
