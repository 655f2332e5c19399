//! What a run's numbers rest on, in words.

use super::lock::{Lock, LockedData, LockedStart};
use crate::experiment::Experiment;

/// What a run's numbers rest on, a line each: the recipe, the program, views, teachers, files of the Hub, datasets, the machine.
pub(super) fn provenance(experiment: &Experiment, lock: &Lock) -> Vec<String> {
    let mut lines = vec![
        format!("recipe digest `{}` (`recipe.resolved.toml` is the same run)", lock.recipe),
        format!("gdrd {}, candle {}, program sha256 `{}`", lock.gdrd, lock.candle, lock.program),
    ];
    for (name, component) in &experiment.views {
        let plain = |(key, value): (&String, &toml::Value)| (key != "kind").then(|| format!("{key} = {value}"));
        let options: Vec<String> = component.resolved.iter().filter_map(plain).collect();
        lines.push(format!("view `{name}`: {} {}", component.kind, options.join(", ")).trim_end().to_string());
    }
    for (name, digest) in &lock.teachers {
        lines.push(format!("teacher `{name}`: sha256 `{digest}`"));
    }
    if let Some(LockedStart { teacher, taken, drawn }) = &lock.student {
        let new = if drawn.is_empty() { "nothing".into() } else { format!("`{}`", drawn.join("`, `")) };
        lines.push(format!("student: starts with {taken} tensors of teacher `{teacher}`; {new} is new"));
    }
    for (address, file) in &lock.files {
        lines.push(format!(
            "{address}: commit `{}`, {} bytes, sha256 `{}`; licence: {}",
            file.commit,
            file.size,
            file.sha256,
            lock.licences.get(address).map_or("not known to gdrd", String::as_str)
        ));
    }
    for (name, LockedData { fingerprint, faces, identities }) in &lock.data {
        lines.push(format!("dataset `{name}`: {faces} faces, {identities} identities, fingerprint `{fingerprint}`"));
    }
    let machine: Vec<String> = lock.machine.iter().map(|(key, value)| format!("{key} {value}")).collect();
    lines.push(format!("machine: {}", machine.join(", ")));
    lines
}
