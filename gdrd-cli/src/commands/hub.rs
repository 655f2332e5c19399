//! `hub`, and the files of the Hub for every command that needs them.

mod card;
mod push;

use std::collections::BTreeMap;
use std::path::Path;

use gdrd_core::error::{Context, Error, ErrorKind, Result};
use gdrd_core::recipe::{HubFile, LockedFile};
use gdrd_core::registry::Registry;
use gdrd_core::run::Lock;
use gdrd_teachers::hub::{Settings, sources, with_licences};

use super::load;
use crate::args::{HubCommand, RecipeArguments};
use crate::progress::Progress;

/// Files of the Hub by address, as a lock has them.
pub(crate) type Locked = BTreeMap<String, LockedFile>;

/// The files of a lock; none without one.
pub(crate) fn locked(lock: Option<&Path>) -> Result<Locked> {
    lock.map_or_else(|| Ok(Locked::new()), |path| Ok(Lock::read_file(path)?.files))
}

pub(crate) fn hub(command: HubCommand, registry: &Registry) -> Result<()> {
    match command {
        HubCommand::Pull { recipe, refresh, lock } => {
            let settings = Settings { refresh, ..Settings::from_env()? };
            for_each(&recipe, lock.as_deref(), settings, registry)
        }
        HubCommand::Verify { recipe, lock } => {
            let settings = Settings { offline: Some("`verify` uses no network"), ..Settings::from_env()? };
            for_each(&recipe, lock.as_deref(), settings, registry)
        }
        HubCommand::Push(wanted) => push::push(&wanted, registry),
        HubCommand::List => list(),
    }
}

/// Has every file of a recipe and shows it; one that cannot be had does not keep the others from it.
fn for_each(arguments: &RecipeArguments, lock: Option<&Path>, settings: Settings, registry: &Registry) -> Result<()> {
    let recipe = load(&arguments.recipe, &arguments.sets, registry)?;
    let locked = locked(lock)?;
    let hub = with_licences(settings);
    let addresses = recipe.addresses();
    if addresses.is_empty() {
        say!("{}: names no file on the Hub", arguments.recipe.display());
    }
    let mut failures = Vec::new();
    for (key, address) in &addresses {
        let name = address.to_string();
        let found = match (lock, locked.get(&name)) {
            (Some(lock), None) => Err(Error::hub(format!("`{}` has no {name}", lock.display()))),
            (_, locked) => hub.get(address, locked, &Progress::new()),
        };
        match found.at(|| format!("`{key}`")) {
            Ok(file) => show(key, &name, &file),
            Err(error) if error.kind() == ErrorKind::Stopped => return Err(error),
            Err(error) => failures.push(error),
        }
    }
    let count = failures.len();
    let Some(last) = failures.pop() else { return Ok(()) };
    failures.iter().for_each(|error| talk!("error: {error}"));
    match count {
        1 => Err(last),
        _ => Err(last.at(format!("the last of {count} errors"))),
    }
}

fn show(key: &str, address: &str, file: &HubFile) {
    let LockedFile { commit, sha256, size } = &file.locked;
    say!("{key}: {address}");
    say!("  commit {commit}, {size} bytes, sha256 {sha256}");
    say!("  licence: {}", file.licence.as_deref().unwrap_or("not known to gdrd"));
    say!("  {}", file.path.display());
}

fn list() -> Result<()> {
    for card in sources()? {
        say!("{} (teacher `{}`, {})", card.name, card.kind, card.size);
        say!("  {}", card.purpose);
        say!("  {}{}", card.address, card.revision.map_or(String::new(), |revision| format!(" at {revision}")));
        say!("  licence: {}; {}\n", card.licence, card.terms);
    }
    Ok(())
}
