//! The model card of a run: `README.md` of its repository, whose first lines the Hub reads as YAML.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use gdrd_core::error::Result;
use gdrd_core::evaluation::Role;
use gdrd_core::recipe::{HubAddress, RepositoryType};
use gdrd_core::report::table::{Align, Table};
use gdrd_core::report::{RunView, notes, results_table};
use gdrd_core::run::Lock;
use gdrd_core::student::{Source, StudentHeader};
use serde_json::{Value, json};

/// What a card is made of.
pub(super) struct Card<'a> {
    /// What the model is called.
    pub(super) name: &'a str,
    /// The licence's identifier on the Hub.
    pub(super) licence: &'a str,
    pub(super) run: &'a RunView,
    pub(super) header: &'a StudentHeader,
    pub(super) lock: &'a Lock,
    /// Whether there is an ONNX model beside it.
    pub(super) onnx: bool,
}

/// A part of what a student comes from.
pub(super) struct Origin<'a> {
    /// What it is, in words.
    pub(super) part: String,
    /// Its licence, where somebody stated one.
    pub(super) licence: Option<&'a str>,
    /// What it is, as a digest.
    digest: Option<&'a str>,
}

/// What a student comes from, and what the students come from that it began with.
pub(super) fn lineage(header: &StudentHeader) -> Vec<Origin<'_>> {
    let facts = &header.facts;
    let mut found = origins("", &header.teachers, &header.licences, &facts.data);
    for before in &facts.began_with {
        let of = format!(" of the student {} that it began with", before.student.get(..12).unwrap_or(&before.student));
        found.extend(origins(&of, &before.teachers, &before.licences, &before.data));
    }
    found
}

fn origins<'a>(
    of: &str,
    teachers: &'a BTreeMap<String, String>,
    licences: &'a BTreeMap<String, String>,
    data: &'a BTreeMap<String, Source>,
) -> Vec<Origin<'a>> {
    let licence = |name: &String| licences.get(name).map(String::as_str);
    let others = licences.keys().filter(|name| !teachers.contains_key(*name)).map(|name| (name, None));
    let named = teachers.iter().map(|(name, digest)| (name, Some(digest.as_str()))).chain(others);
    let named = named.map(|(name, digest)| {
        let what = if digest.is_some() { "teacher " } else { "" };
        Origin { part: format!("{what}`{name}`{of}"), licence: licence(name), digest }
    });
    let data = data.iter().map(|(name, source)| {
        let made = if source.made.is_empty() { String::new() } else { format!(" ({})", source.made.join(", ")) };
        let part = format!("dataset `{name}`{made}{of}");
        Origin { part, licence: source.licence.as_deref(), digest: Some(&source.digest) }
    });
    named.chain(data).collect()
}

impl Card<'_> {
    /// The card.
    ///
    /// # Errors
    /// If a protocol has no headline, which none of gdrd is without.
    pub(super) fn text(&self) -> Result<String> {
        let mut out = String::from("---\n");
        yaml(&self.metadata(), 0, false, &mut out);
        let size = self.header.card.input_size;
        let _ = write!(
            out,
            "---\n\n# {}\n\nA face recogniser for very low-resolution faces: {size}x{size} pixels in, an embedding{} out. [gdrd](https://crates.io/crates/gdrd-student) \
             distilled it (kind `{}`, recipe digest `{}`).\n\n",
            self.name,
            self.header.card.embedding.map_or(String::new(), |values| format!(" of {values} values, of unit length,")),
            self.header.kind,
            self.header.recipe,
        );
        out.push_str(
            "**What it is not for.** A face of so few pixels says little. It must not decide about anybody. Recognise only people \
             who agreed to it, do not watch public places with it, and measure its errors on your own people, by group, before you \
             rely on anything.\n\n## Results\n\n",
        );
        for (protocol, rows) in &self.run.measured {
            let about = self.run.protocols.get(protocol);
            let data = about.map_or(String::new(), |about| about.data.join(", "));
            let kind = about.map_or("", |about| about.kind.as_str());
            let _ = write!(out, "`{protocol}` ({kind}; {data}):\n\n{}", results_table(rows)?.to_markdown());
            for note in notes(rows) {
                let _ = write!(out, "\n- {note}\n");
            }
            out.push('\n');
        }
        self.thresholds(&mut out)?;
        self.files(&mut out);
        let mut table = Table::new([("part", Align::Left), ("licence", Align::Left), ("sha256", Align::Left)]);
        for Origin { part, licence, digest } in lineage(self.header) {
            table.push([part.as_str(), licence.unwrap_or("not stated"), digest.unwrap_or("-")])?;
        }
        let _ = write!(
            out,
            "## Where it comes from\n\nA licence of a dataset or a teacher may forbid that a student of it is published or used.\n\n{}",
            table.to_markdown()
        );
        Ok(out)
    }

    fn thresholds(&self, out: &mut String) -> Result<()> {
        let Some(calibration) = &self.header.facts.calibration else { return Ok(()) };
        let mut table = Table::new([
            ("face, pixels", Align::Right),
            ("false match rate", Align::Right),
            ("similarity from", Align::Right),
            ("same person's faces found", Align::Right),
        ]);
        let all = calibration.sizes.iter().flat_map(|at| at.all().map(|(compared, by)| (at.size, compared, by)));
        for (size, compared, by) in all {
            for point in &by.thresholds {
                table.push([
                    format!("{size}{compared}"),
                    format!("{:e}", point.false_match_rate),
                    format!("{:.4}", point.similarity),
                    point.true_match_rate.map_or("-".into(), |rate| format!("{:.2} %", 100.0 * rate)),
                ])?;
            }
        }
        let _ = write!(
            out,
            "## Thresholds\n\nMeasured on {} faces of {} people of `{}`, for one comparison.\n\n{}\n",
            calibration.faces,
            calibration.people,
            calibration.data,
            table.to_markdown()
        );
        Ok(())
    }

    fn files(&self, out: &mut String) {
        let input = self.header.card.input_size;
        out.push_str("## Use\n\n```rust\n");
        out.push_str("let encoder = gdrd_student::FaceEncoder::open(\"student.safetensors\")?;\n");
        out.push_str("let embedding = encoder.face(&aligned_face)?;\n```\n\n");
        out.push_str(
            "- `student.safetensors`: weights, and in its metadata how faces are prepared, thresholds and figures\n",
        );
        if self.onnx {
            let _ = writeln!(
                out,
                "- `student.onnx`: the same network; `faces` are bytes [batch, {input}, {input}, 3], RGB, `embedding` is of unit length"
            );
        }
        out.push_str("- `recipe.resolved.toml`, `lock.json`: the run, and everything that its numbers depend on; `gdrd train recipe.resolved.toml --lock lock.json` repeats it\n\n");
    }

    /// What the Hub reads: <https://huggingface.co/docs/hub/model-cards#model-card-metadata>.
    fn metadata(&self) -> Value {
        let addresses: Vec<HubAddress> = self.lock.files.keys().filter_map(|address| address.parse().ok()).collect();
        let of = |kind| {
            let found = addresses.iter().filter(|address| address.repository_type == kind);
            found.map(|address| address.repository.as_str()).collect::<BTreeSet<_>>()
        };
        let mut tags = vec!["face-recognition", "low-resolution", "knowledge-distillation"];
        tags.extend(self.onnx.then_some("onnx"));
        let mut metadata = json!({
            "license": self.licence,
            "library_name": "gdrd",
            "pipeline_tag": "image-feature-extraction",
            "tags": tags,
        });
        for (key, kind) in [("base_model", RepositoryType::Model), ("datasets", RepositoryType::Dataset)] {
            let names = of(kind);
            if !names.is_empty() {
                metadata[key] = json!(names);
            }
        }
        let results: Vec<Value> = self.run.measured.keys().filter_map(|protocol| self.result(protocol)).collect();
        if !results.is_empty() {
            metadata["model-index"] = json!([{ "name": self.name, "results": results }]);
        }
        metadata
    }

    /// What the student scored by one protocol; none if it was not measured, or no figure came of it.
    fn result(&self, protocol: &str) -> Option<Value> {
        let student = self.run.measured.get(protocol)?.iter().find(|row| row.role == Role::Student)?;
        let about = self.run.protocols.get(protocol)?;
        let metric = |figure: &gdrd_core::evaluation::Figure| {
            let mut metric = json!({ "type": plain(&figure.name), "value": figure.value?, "name": figure.name });
            if !figure.unit.sign().is_empty() {
                metric["name"] = json!(format!("{}, {}", figure.name, figure.unit.sign()));
            }
            Some(metric)
        };
        let figures = student.outcome.figures.iter().filter(|figure| figure.in_table);
        let metrics: Vec<Value> = figures.filter_map(metric).collect();
        let data = about.data.first().map_or("faces", String::as_str);
        (!metrics.is_empty()).then(|| {
            json!({
                "task": { "type": "image-feature-extraction", "name": format!("face {}", about.kind) },
                "dataset": { "type": data, "name": format!("{protocol} ({data})"), "config": protocol },
                "metrics": metrics,
            })
        })
    }
}

/// A metric's name as an identifier: `tar-at-far-0.01`.
fn plain(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || c == '.' { c } else { '-' };
    name.to_lowercase().chars().map(plain).collect()
}

/// Writes a value as YAML, in blocks; scalars are written as JSON, which YAML 1.2 contains. The first line may be `begun`.
fn yaml(value: &Value, indent: usize, begun: bool, out: &mut String) {
    let nested = |value: &Value| match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    let begin = |at: usize, out: &mut String| {
        if at > 0 || !begun {
            let _ = write!(out, "{:indent$}", "");
        }
    };
    match value {
        Value::Object(fields) => {
            for (at, (key, value)) in fields.iter().enumerate() {
                begin(at, out);
                if nested(value) {
                    let _ = writeln!(out, "{key}:");
                    yaml(value, indent + 2, false, out);
                } else {
                    let _ = writeln!(out, "{key}: {value}");
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                begin(at, out);
                out.push_str("- ");
                if nested(item) {
                    yaml(item, indent + 2, true, out);
                } else {
                    let _ = writeln!(out, "{item}");
                }
            }
        }
        scalar => {
            let _ = writeln!(out, "{scalar}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_is_in_blocks() {
        let value = json!({
            "a": "x: \"y\"", "b": [1, "two"], "c": [{ "d": 0.5, "e": { "f": null } }, { "g": [] }],
        });
        let mut out = String::new();
        yaml(&value, 0, false, &mut out);
        assert_eq!(
            out,
            "a: \"x: \\\"y\\\"\"\nb:\n  - 1\n  - \"two\"\nc:\n  - d: 0.5\n    e:\n      f: null\n  - g: []\n"
        );
    }

    #[test]
    fn metrics_have_identifiers() {
        assert_eq!(plain("TAR at FAR 0.01"), "tar-at-far-0.01");
    }
}
