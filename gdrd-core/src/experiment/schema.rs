//! The JSON schema of recipes, made from the live registry, so that a program with plug-ins of its own has them in it.

use serde_json::{Map, Value, json};

use super::run_options::RunOptions;
use crate::closed_form::ClosedForm;
use crate::registry::{Listed, Registry};
use crate::student::CalibrationOptions;
use crate::trainer::StageOptions;

/// Keys that `[student]` has whatever its kind is.
const STUDENT_KEYS: [(&str, &str); 3] = [
    (
        "initial",
        "A student file of the same kind and sizes whose weights the student begins with: this is how one fine-tunes.",
    ),
    (
        "initial_teacher",
        "A teacher of the recipe whose weights the student begins with; their names and shapes must be the student's, but for a \
         head of its own.",
    ),
    ("view", "The view that the student sees; `low` when left out."),
];

/// The schema of a whole recipe, for editors. Values from `extends` and `--set` are not in the file that an editor sees, so
/// nothing but `format` is required.
pub fn schema(registry: &Registry) -> Value {
    let kinds = registry.kinds();
    let one_of = |family: &str| -> Value {
        let of_family = kinds.iter().filter(|kind| kind.family == family);
        json!({ "oneOf": of_family.map(with_kind).collect::<Vec<_>>() })
    };
    let tables = |inner: Value| json!({ "type": "object", "additionalProperties": inner });
    let mut stage = plain(schemars::schema_for!(StageOptions));
    if let Some(properties) = stage.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("optimizer".into(), one_of("optimizer"));
        properties.insert("schedule".into(), one_of("schedule"));
        let mut loss = one_of("loss");
        for option in loss["oneOf"].as_array_mut().into_iter().flatten() {
            option["properties"]["weight"] = weight_schema();
        }
        properties.insert("loss".into(), tables(loss));
        properties.insert("closed_form".into(), plain(schemars::schema_for!(ClosedForm)));
    }
    let mut student = one_of("student");
    for option in student["oneOf"].as_array_mut().into_iter().flatten() {
        for (key, said) in STUDENT_KEYS {
            option["properties"][key] = json!({ "type": "string", "description": said });
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gdrd recipe",
        "type": "object",
        "additionalProperties": false,
        "required": ["format"],
        "properties": {
            "format": { "const": 1 },
            "extends": { "type": "string", "description": "A recipe that this one changes, relative to this file." },
            "name": { "type": "string", "description": "What the run is called; the file's name when left out." },
            "quoted": { "type": "string", "description": "What a publication prints for this system, such as `94.62`: a column of `gdrd ablate`'s table." },
            "stages": { "type": "array", "items": { "type": "string" }, "description": "Stages to run, in order; none where the student of a file, `student.initial`, is measured as it is." },
            "run": plain(schemars::schema_for!(RunOptions)),
            "data": tables(one_of("dataset")),
            "degradation": one_of("degradation"),
            "view": tables(one_of("degradation")),
            "teacher": tables(one_of("teacher")),
            "student": student,
            "stage": tables(stage),
            "evaluate": tables(one_of("protocol")),
            "calibration": plain(schemars::schema_for!(CalibrationOptions)),
            "licences": {
                "type": "object",
                "additionalProperties": { "type": "string" },
                "description": "Licences of datasets and teachers, for the student's file: `\"data.train\" = \"CC BY 4.0\"`.",
            },
        },
    })
}

/// The factor of a loss.
pub(super) fn weight_schema() -> Value {
    json!({
        "type": "number",
        "default": 1.0,
        "minimum": -1e9,
        "maximum": 1e9,
        "description": "Factor in the stage's sum.",
    })
}

/// A component's schema with the key `kind`, and with `enabled`, which takes a table out.
fn with_kind(kind: &Listed) -> Value {
    let mut schema = plain(kind.schema.clone());
    if let Some(table) = schema.as_object_mut() {
        let properties = table.entry("properties").or_insert_with(|| Value::Object(Map::new()));
        properties["kind"] = json!({ "const": kind.name, "description": kind.purpose });
        properties["enabled"] = json!({ "type": "boolean" });
        // A file may change one option of its parent's table and leave the rest, required ones too.
        table.insert("required".into(), json!(["kind"]));
    }
    schema
}

fn plain(schema: schemars::Schema) -> Value {
    let mut value = Value::from(schema);
    if let Some(table) = value.as_object_mut() {
        table.remove("$schema");
    }
    value
}
