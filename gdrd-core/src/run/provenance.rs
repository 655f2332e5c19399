//! What a run's numbers rest on, in words.

use super::lock::{Lock, LockedData, LockedStart};
use crate::data::DegradationConfig;
use crate::experiment::Experiment;
use crate::plugin::Component;

/// What a run's numbers rest on, a line each: the recipe, the program, views, teachers, files of the Hub, datasets, the machine.
pub(super) fn provenance(experiment: &Experiment, lock: &Lock) -> Vec<String> {
    let mut lines = of_lock(lock);
    let view = |(name, component): (&String, &Component<dyn DegradationConfig>)| {
        let plain = |(key, value): (&String, &toml::Value)| (key != "kind").then(|| format!("{key} = {value}"));
        let options: Vec<String> = component.resolved.iter().filter_map(plain).collect();
        format!("view `{name}`: {} {}", component.kind, options.join(", ")).trim_end().to_string()
    };
    lines.splice(2..2, experiment.views.iter().map(view));
    lines
}

/// The same, but for the views, which only the recipe says.
pub(super) fn of_lock(lock: &Lock) -> Vec<String> {
    let mut lines = vec![
        format!("recipe digest `{}` (`recipe.resolved.toml` is the same run)", lock.recipe),
        format!("gdrd {}, candle {}, program sha256 `{}`", lock.gdrd, lock.candle, lock.program),
    ];
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
