//! `kinds`.

use gdrd_core::error::{Error, Result};
use gdrd_core::plugin::bounds::bounds;
use gdrd_core::recipe::diagnostic::suggest;
use gdrd_core::registry::{Listed, Registry};

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
                Some(serde_json::Value::Null) | None => "optional".to_string(),
                Some(value) => format!("default {value}"),
            };
            let bounds = bounds(option).map_or_else(String::new, |bounds| format!("; {bounds}"));
            say!("  {name} ({default}{bounds})");
            for line in option.get("description").and_then(|d| d.as_str()).unwrap_or_default().lines() {
                say!("      {line}");
            }
        }
    }
    Ok(())
}
