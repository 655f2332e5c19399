//! `kinds`.

use gdrd_core::error::{Error, Result};
use gdrd_core::loss::{Needs, Wanted};
use gdrd_core::plugin::bounds::bounds;
use gdrd_core::recipe::diagnostic::suggest;
use gdrd_core::registry::{Listed, Registry};
use serde_json::Value;

pub(crate) fn kinds(wanted: Option<&str>, registry: &Registry) -> Result<()> {
    let all = registry.kinds();
    let Some(wanted) = wanted else {
        let mut family = "";
        for kind in &all {
            if kind.family != family {
                family = kind.family;
                say!("{family}");
            }
            say!("  {:<24} {}", kind.name, kind.purpose);
        }
        return Ok(());
    };
    let found: Vec<&Listed> = all.iter().filter(|kind| kind.name == wanted).collect();
    if found.is_empty() {
        let hint = suggest(wanted, all.iter().map(|kind| kind.name));
        return Err(Error::recipe(format!("nothing is called `{wanted}`\n\nhint: {hint}")));
    }
    for kind in found {
        say!("{} `{}`: {}\n", kind.family, kind.name, kind.purpose);
        if let Some(text) = kind.schema.get("description").and_then(|d| d.as_str()) {
            say!("{text}\n");
        }
        let required: Vec<&str> = kind
            .schema
            .get("required")
            .and_then(|r| r.as_array())
            .into_iter()
            .flatten()
            .filter_map(|r| r.as_str())
            .collect();
        let options = kind.schema.get("properties").and_then(|p| p.as_object());
        for (name, option) in options.into_iter().flatten() {
            let default = match option.get("default") {
                _ if required.contains(&name.as_str()) => "required".to_string(),
                Some(Value::Null) | None => "optional".to_string(),
                Some(value) => format!("default {value}"),
            };
            let bounds = bounds(option).map_or_else(String::new, |bounds| format!("; {bounds}"));
            say!("  {name} ({default}{bounds})");
            for line in option.get("description").and_then(|d| d.as_str()).unwrap_or_default().lines() {
                say!("      {line}");
            }
            for (value, meaning) in choices(option, kind.schema.get("$defs")) {
                say!("      - \"{value}\"{}{meaning}", if meaning.is_empty() { "" } else { ": " });
            }
        }
    }
    Ok(())
}

/// The texts that an option may be, and what each means.
fn choices(option: &Value, definitions: Option<&Value>) -> Vec<(String, String)> {
    let description = |of: &Value| {
        let text = of.get("description").and_then(Value::as_str).unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    if let Some(name) = option.get("$ref").and_then(|r| r.as_str()?.strip_prefix("#/$defs/")) {
        return definitions.and_then(|all| all.get(name)).map_or_else(Vec::new, |found| choices(found, definitions));
    }
    if let Some(value) = option.get("const").and_then(Value::as_str) {
        return vec![(value.to_string(), description(option))];
    }
    let texts = option.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let plain = texts.map(|text| (text.to_string(), String::new()));
    let several = ["oneOf", "anyOf"].into_iter().filter_map(|key| option.get(key)?.as_array()).flatten();
    plain.chain(several.flat_map(|one| choices(one, definitions))).collect()
}

/// A Markdown table of all losses, with their options as they are when nothing is given.
pub(crate) fn table(registry: &Registry) -> Result<()> {
    say!("| loss | equation | of teachers | of the student | labels | memory of a batch |");
    say!("|---|---|---|---|---|---|");
    for (name, _) in registry.losses.list() {
        // A loss of which something has to be said in a recipe cannot say what it needs without that.
        let Ok(config) = registry.losses.from_json(name, &serde_json::json!({})) else {
            say!("| `{name}` | | | | | |");
            continue;
        };
        let (needs, about) = (config.needs(), config.about());
        let (teachers, student) = (of_teachers(&needs), of_student(&needs));
        let labels = if needs.labels { "yes" } else { "no" };
        // A bar would end the column.
        let equation = about.equation.replace('|', "\\|");
        say!("| `{name}` | {equation} | {teachers} | {student} | {labels} | {} |", about.memory);
    }
    say!("\nb faces, embeddings of w values, c people, maps of h w pixels, p pairs, a queue of q faces");
    Ok(())
}

fn of_teachers(needs: &Needs) -> String {
    let output = |wanted: &Wanted| match wanted {
        Wanted::Embedding => "embedding".to_string(),
        Wanted::Logits => "logits".to_string(),
        Wanted::Map(name) => format!("map {name}"),
        Wanted::DefaultMap => "map".to_string(),
    };
    let centres = needs.centres.then(|| "mean of each person".to_string());
    let all: Vec<String> = needs.teachers.iter().map(|need| output(&need.output)).chain(centres).collect();
    if all.is_empty() { "-".to_string() } else { all.join(", ") }
}

fn of_student(needs: &Needs) -> String {
    let all = [
        (needs.map, "map"),
        (needs.embedding, "embedding"),
        (needs.logits_of.is_some(), "logits of another term"),
        (needs.denoiser, "denoiser"),
    ];
    let mut wanted: Vec<String> = all.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name.into()).collect();
    wanted.extend(needs.embeddings_of.iter().map(|view| format!("embedding of view {view}")));
    wanted.extend(needs.views.iter().map(|view| format!("faces of view {view}")));
    if wanted.is_empty() { "-".to_string() } else { wanted.join(", ") }
}
