//! The recipes of the systems that the paper compares with: each is good, changes its method alone, and trains.

use std::path::PathBuf;

use gdrd_tests::{Bench, Said, files_below, losses, registry, root};

use crate::gdrd;

/// Everything small: 12 people with 4 images each, 4 steps, a narrow student.
const SMALL: [&str; 9] = [
    "data.train.identities=12",
    "data.train.images_per_identity=4",
    "stage.generative.epochs=1",
    "stage.generative.batch_size=12",
    "stage.discriminative.epochs=1",
    "stage.discriminative.batch_size=12",
    "student.head={ channels = [8], hidden = [16], normalise = true }",
    "evaluate.held-out.enabled=false",
    "data.others.identities=20",
];

/// Those that change the quick start; the others change `base`.
const WHOLE: [&str; 3] = ["base", "gdrd", "gdrd-embedding"];

fn recipes() -> Vec<PathBuf> {
    files_below(&root().join("assets/recipes/compared"), ".toml")
}

fn name(path: &std::path::Path) -> String {
    path.file_stem().expect("a name").to_string_lossy().into_owned()
}

#[test]
fn every_recipe_says_its_method_alone() {
    let recipes = recipes();
    assert!(recipes.len() > 30, "{recipes:?}");
    for path in &recipes {
        let text = std::fs::read_to_string(path).expect("a recipe");
        let name = name(path);
        let parent = if WHOLE.contains(&name.as_str()) { "../quickstart.toml" } else { "base.toml" };
        assert!(text.contains(&format!("extends = \"{parent}\"")), "`{name}` extends `{parent}`");
        for table in text.lines().filter(|line| line.starts_with('[')) {
            let losses = table.starts_with("[stage.discriminative.loss");
            let shown = table.starts_with("[view.") || table.starts_with("[student");
            // The faces of the test are a stage of AIRD's, and the people are the base's.
            let own = name == "aird" && table.starts_with("[stage.adaptation");
            let base = WHOLE.contains(&name.as_str()) && table == "[data.train]";
            assert!(losses || shown || own || base || table == "[stage.discriminative]", "`{name}`: {table}");
        }
    }
}

#[test]
fn a_licence_is_of_the_part_as_the_recipe_that_states_it_has_it() {
    let bench = Bench::empty();
    let stated = |sets: &[&str]| {
        let recipe = bench.recipe(&root().join("assets/recipes/quickstart.toml"), sets);
        recipe.licences.into_iter().map(|(part, licence)| format!("{part}: {licence}")).collect::<Vec<_>>()
    };
    let teachers = ["teacher.discriminative: MIT OR Apache-2.0", "teacher.generative: MIT OR Apache-2.0"];
    assert_eq!(stated(&[]), [&["data.train: MIT OR Apache-2.0"], &teachers[..]].concat());
    assert_eq!(stated(&["data.train.identities=12"]), teachers, "other faces are not licensed by it");
}

#[test]
fn every_system_trains() {
    let bench = Bench::empty();
    for path in recipes() {
        let name = name(&path);
        // A recogniser has a head of its own, also behind a restored face.
        let own_head = ["iasr", "mobilefacenet", "iresnet18"].contains(&name.as_str());
        let sets = SMALL.iter().filter(|set| !own_head || !set.starts_with("student.head"));
        let recipe = bench.recipe(&path, &sets.copied().collect::<Vec<_>>());
        let (_, events) = bench.train(&recipe, &name);
        let steps = losses(&events, None);
        let expected = match name.as_str() {
            "gdrd" | "gdrd-embedding" => 8,
            "aird" => 5,
            _ => 4,
        };
        assert_eq!(steps.len(), expected, "`{name}`");
        let stage = recipe.stages.iter().find(|stage| stage.name == "discriminative").expect("a stage");
        for term in stage.losses.keys() {
            let values = losses(&events, Some(term));
            assert!(values.len() >= 4, "`{term}` of `{name}`: {values:?}");
            assert!(values.iter().any(|value| *value != 0.0), "`{term}` of `{name}` asks for nothing");
        }
    }
}

#[test]
fn a_table_of_all_losses_says_what_each_is_given() {
    let bench = Bench::empty();
    let said = Said::by(gdrd(&bench).args(["kinds", "--table"])).with_code(0);
    for kind in registry().kinds().iter().filter(|kind| kind.family == "loss") {
        let start = format!("| `{}` | ", kind.name);
        let row = said.stdout.lines().find(|line| line.starts_with(&start)).expect("a row for each loss");
        let plain = row.replace("\\|", "");
        let cells: Vec<&str> = plain.split(" | ").collect();
        assert_eq!(cells.len(), 6, "{row}");
        assert!(cells.iter().all(|cell| !cell.trim().is_empty()), "{row}");
    }
    let row = |name: &str| said.stdout.lines().find(|line| line.contains(&format!("`{name}`"))).expect("a row");
    assert!(row("crd").contains("| embedding | embedding | yes | b (b + q) |"), "{}", row("crd"));
    assert!(row("attention-transfer").contains("| map | map | no |"), "{}", row("attention-transfer"));
}
