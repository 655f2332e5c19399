//! Identification and retrieval are scikit-learn's, templates NumPy's; `golden/retrieval/ORIGIN.md` and that of `golden/templates`
//! say how.

use std::sync::Arc;

use candle_core::Device;
use gdrd_core::context::BuildContext;
use gdrd_core::data::{Attribute, Dataset};
use gdrd_core::embedder::{Embedder, Embeddings};
use gdrd_core::error::Result;
use gdrd_core::evaluation::{Identification, OpenSetIdentification, Outcome, ProtocolConfig, Retrieval};
use gdrd_core::face::Face;
use gdrd_core::plugin::Workbench;

use crate::golden::Golden;

const PEOPLE: usize = 12;

/// Faces that say which row of which table they are, and whose.
struct Rows {
    table: u8,
    people: Vec<Option<usize>>,
    names: Vec<String>,
    /// Template and media of each, if they have some.
    attributes: Vec<[i64; 2]>,
}

impl Rows {
    fn of(table: u8, people: impl IntoIterator<Item = Option<usize>>) -> Self {
        let names = (0..PEOPLE).map(|person| format!("person {person:02}")).collect();
        Self { table, people: people.into_iter().collect(), names, attributes: Vec::new() }
    }
}

impl Dataset for Rows {
    fn len(&self) -> usize {
        self.people.len()
    }

    fn people(&self) -> &[String] {
        // Nobody is known where there is no known face.
        if self.people.iter().any(Option::is_some) { &self.names } else { &[] }
    }

    fn person(&self, index: usize) -> Option<usize> {
        self.people[index]
    }

    fn key(&self, index: usize) -> String {
        format!("{} {index}", self.table)
    }

    fn attributes(&self, index: usize) -> Vec<Attribute> {
        let named = |numbers: &[i64; 2]| ["template", "media"].into_iter().zip(*numbers).collect::<Vec<_>>();
        let all = self.attributes.get(index).map(named).unwrap_or_default();
        all.into_iter().map(|(name, number)| (name.to_string(), number.to_string())).collect()
    }

    fn face(&self, index: usize) -> Result<Face> {
        Face::new(1, 1, vec![self.table, index as u8, (index >> 8) as u8])
    }
}

/// Looks the embedding of a face up.
struct Tables(Vec<Vec<Vec<f32>>>);

impl Embedder for Tables {
    fn name(&self) -> &str {
        "tables"
    }

    fn width(&self) -> usize {
        16
    }

    fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
        let row = |face: &Face| {
            let [table, low, high] = [0, 1, 2].map(|at| usize::from(face.pixels()[at]));
            self.0[table][high << 8 | low].clone()
        };
        Embeddings::from_rows(16, faces.iter().flat_map(row).collect())
    }
}

fn tables(golden: &Golden, name: &str) -> Tables {
    let table = |of: &str| golden.get(&format!("{name}.{of}")).to_vec2::<f32>().expect("rows");
    Tables(["gallery", "probes", "strangers"].map(table).into())
}

fn gallery_person(face: usize) -> usize {
    face % PEOPLE
}

fn probe_person(face: usize) -> usize {
    face * 5 % PEOPLE
}

fn outcome(config: &dyn ProtocolConfig, embedder: &Tables, bench: &Workbench) -> Outcome {
    let cx = BuildContext::new(bench);
    let outcome = config.build(&cx).and_then(|protocol| protocol.evaluate(embedder, &cx)).expect("an outcome");
    outcome.check().expect("a good outcome");
    outcome
}

#[track_caller]
fn close(outcome: &Outcome, name: &str, expected: f64, tolerance: f64) {
    let found = outcome.get(name).and_then(|figure| figure.value).unwrap_or_else(|| panic!("{name} in {outcome:?}"));
    assert!((found - expected).abs() < tolerance, "{name}: expected {expected}, found {found}");
}

fn bench() -> Workbench {
    let part = |rows: Rows| -> Arc<dyn Dataset> { Arc::new(rows) };
    Workbench::new(Device::Cpu)
        .with("dataset", "gallery", part(Rows::of(0, (0..60).map(|face| Some(gallery_person(face))))))
        .with("dataset", "probes", part(Rows::of(1, (0..48).map(|face| Some(probe_person(face))))))
        .with("dataset", "strangers", part(Rows::of(2, (0..40).map(|_| None))))
}

#[test]
fn retrieval() {
    let golden = Golden::read("retrieval");
    let config: Retrieval = serde_json::from_value(serde_json::json!({
        "gallery": "gallery", "probes": "probes", "distractors": "strangers",
    }))
    .expect("options");
    for name in ["fine", "tied"] {
        let found = outcome(&config, &tables(&golden, name), &bench());
        let expected = golden.numbers(&format!("{name}.figures"));
        let names = [
            "rank-1",
            "rank-5",
            "rank-10",
            "rank-20",
            "mean average precision",
            "mean average precision by trapezoids",
        ];
        for (figure, expected) in names.iter().zip(expected) {
            close(&found, figure, 100.0 * expected, 1e-9);
        }
    }
}

#[test]
fn identification() {
    let golden = Golden::read("retrieval");
    for (classifier, name) in [("softmax", "softmax"), ("nearest-mean", "means")] {
        let config: Identification = serde_json::from_value(serde_json::json!({
            "gallery": "gallery", "probes": "probes", "classifier": classifier, "l2": 1e-3, "tolerance": 1e-6, "ranks": [3, 5],
        }))
        .expect("options");
        let found = outcome(&config, &tables(&golden, "fine"), &bench());
        let expected = golden.numbers(&format!("{name}.figures"));
        for (figure, expected) in ["rank-1", "rank-3", "rank-5"].iter().zip(&expected) {
            close(&found, figure, 100.0 * expected, 1e-9);
        }
        if let Some(loss) = expected.get(3) {
            close(&found, "loss of the softmax layer", *loss, 1e-5);
        }
    }
}

#[test]
fn open_set_identification() {
    let golden = Golden::read("retrieval");
    let part = |rows: Rows| -> Arc<dyn Dataset> { Arc::new(rows) };
    // The first eight people are enrolled; faces of the others in the gallery are nobody's.
    let known = |face: usize| Some(gallery_person(face)).filter(|person| *person < 8);
    let bench = bench().with("dataset", "enrolled", part(Rows::of(0, (0..60).map(known)))).with(
        "dataset",
        "asked",
        Arc::new(Both) as Arc<dyn Dataset>,
    );
    let config: OpenSetIdentification = serde_json::from_value(serde_json::json!({
        "gallery": "enrolled", "probes": "asked", "fpir": [0.05, 0.1, 0.3],
    }))
    .expect("options");
    let found = outcome(&config, &tables(&golden, "fine"), &bench);
    let expected = golden.numbers("open.figures");
    for (figure, expected) in OPEN.iter().zip(expected) {
        close(&found, figure, 100.0 * expected, 1e-9);
    }
}

#[test]
fn templates() {
    let golden = Golden::read("templates");
    let column = |name: String| golden.get(&name).to_vec1::<i64>().expect("numbers");
    let part = |table: u8, side: &str| -> Arc<dyn Dataset> {
        let people = column(format!("{side}.person")).into_iter().map(|person| Some(person as usize));
        let [template, media] = ["template", "media"].map(|name| column(format!("{side}.{name}")));
        let attributes = template.into_iter().zip(media).map(|(template, media)| [template, media]).collect();
        Arc::new(Rows { attributes, ..Rows::of(table, people) })
    };
    let bench = Workbench::new(Device::Cpu).with("dataset", "gallery", part(0, "gallery")).with(
        "dataset",
        "probes",
        part(1, "probes"),
    );
    let rows = |side: &str| golden.get(&format!("{side}.rows")).to_vec2::<f32>().expect("rows");
    let embedder = Tables(["gallery", "probes"].map(rows).into());
    for (name, media) in [("media", Some("media")), ("images", None)] {
        let options = serde_json::json!({
            "gallery": "gallery", "probes": "probes", "template": "template", "media": media, "fpir": [0.05, 0.1, 0.3],
        });
        let config: OpenSetIdentification = serde_json::from_value(options).expect("options");
        let found = outcome(&config, &embedder, &bench);
        let expected = golden.numbers(&format!("{name}.figures"));
        for (figure, expected) in OPEN.iter().zip(&expected) {
            close(&found, figure, 100.0 * expected, 1e-9);
        }
        let options = serde_json::json!({
            "gallery": "gallery", "probes": "probes", "template": "template", "media": media, "classifier": "nearest-mean",
        });
        let config: Identification = serde_json::from_value(options).expect("options");
        close(&outcome(&config, &embedder, &bench), "rank-1", 100.0 * expected[3], 1e-9);
    }
}

/// Figures of open-set identification.
const OPEN: [&str; 4] = ["TPIR at FPIR 0.05", "TPIR at FPIR 0.1", "TPIR at FPIR 0.3", "rank-1 of the enrolled"];

/// The probes, and behind them the strangers.
struct Both;

/// Number of probes.
const PROBES: usize = 48;

impl Dataset for Both {
    fn len(&self) -> usize {
        PROBES + 40
    }

    fn people(&self) -> &[String] {
        static NAMES: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
        NAMES.get_or_init(|| Rows::of(0, []).names)
    }

    fn person(&self, index: usize) -> Option<usize> {
        (index < PROBES).then(|| probe_person(index))
    }

    fn key(&self, index: usize) -> String {
        index.to_string()
    }

    fn face(&self, index: usize) -> Result<Face> {
        match index < PROBES {
            true => Face::new(1, 1, vec![1, index as u8, 0]),
            false => Face::new(1, 1, vec![2, (index - PROBES) as u8, 0]),
        }
    }
}
