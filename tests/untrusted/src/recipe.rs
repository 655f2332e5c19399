//! Recipes and `--set`s.

use std::sync::OnceLock;

use gdrd_core::experiment::Experiment;
use gdrd_core::registry::Registry;

use crate::folder;

static REGISTRY: OnceLock<Registry> = OnceLock::new();

/// All kinds of gdrd.
pub(crate) fn registry() -> &'static Registry {
    REGISTRY.get_or_init(|| {
        let mut registry = Registry::with_core().expect("core's kinds");
        gdrd_teachers::register(&mut registry).expect("teachers");
        gdrd_student::register(&mut registry).expect("students");
        registry
    })
}

/// The text of a recipe; each NUL begins a `--set`.
pub(crate) fn read(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0);
    let path = folder::file("recipes/r.toml", parts.next().unwrap_or_default());
    let sets: Vec<String> = parts.map(|set| String::from_utf8_lossy(set).into_owned()).collect();
    match Experiment::load(&path, &sets, registry()) {
        Ok(experiment) => {
            let text = experiment.resolved();
            assert!(!experiment.digest().is_empty() && text.contains("format"));
            let again = folder::file("recipes/again.toml", text.as_bytes());
            let again = Experiment::load(&again, &[], registry()).unwrap_or_else(|failure| {
                panic!("a resolved recipe is refused:\n{failure}\n{text}");
            });
            assert_eq!(again.digest(), experiment.digest(), "a resolved recipe is another:\n{text}");
        }
        Err(failure) => assert!(failure.to_string().contains("error"), "a failure without words"),
    }
}
