//! `check`.

use std::path::PathBuf;

use gdrd_core::error::{Error, Result};
use gdrd_core::experiment::Experiment;
use gdrd_core::registry::Registry;

pub(crate) fn check(paths: &[PathBuf], sets: &[String], registry: &Registry) -> Result<()> {
    let mut wrong = 0;
    for path in paths {
        match Experiment::load(path, sets, registry) {
            Ok(_) => say!("{}: good", path.display()),
            // One recipe's problems say all that there is to say.
            Err(failure) if paths.len() == 1 => return Err(Error::from(failure)),
            Err(failure) => {
                wrong += 1;
                talk!("{failure}");
            }
        }
    }
    match wrong {
        0 => Ok(()),
        count => Err(Error::recipe(format!("{count} of {} recipes are wrong", paths.len()))),
    }
}
