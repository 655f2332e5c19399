//! Whose a file is that something would be written over.

use std::path::{Path, PathBuf};

use super::checksums::CHECKSUMS;
use super::folder::RunFolder;
use super::mark::MARK;
use crate::error::{Error, Result};
use crate::files::{self, write_atomically};

/// The run folder whose run has written this file, by the names that gdrd gives; none for any other file, and where none is.
pub fn run_that_wrote(file: &Path) -> Option<PathBuf> {
    let file = file.canonicalize().ok()?;
    // The deepest that a run writes is a file of a checkpoint.
    let mut above = file.ancestors().skip(1).take(3);
    above.find(|&path| is_of_run(&RunFolder::new(path), &file)).map(Path::to_path_buf)
}

fn is_of_run(run: &RunFolder, file: &Path) -> bool {
    let Ok(name) = file.strip_prefix(run.path()) else { return false };
    let is_checkpoint = || name.starts_with("checkpoints") && name.components().count() == 3;
    let is_written = || match run.written() {
        Ok(written) => written.iter().any(|ours| name == Path::new(ours)),
        // What a run has written cannot be told where its recipe cannot be read, so it may be this.
        Err(_) => true,
    };
    run.is_begun() && ([MARK, CHECKSUMS].map(Path::new).contains(&name) || is_checkpoint() || is_written())
}

/// Refuses to write the table of an ablation over files that no ablation has written.
pub(super) fn claim_ablation(folder: &Path, names: &[String]) -> Result<()> {
    claim(folder, "ablation", "--run-dir", names)
}

/// Refuses to write files of `what` over others; the command line's `option` names the folder.
pub(super) fn claim(folder: &Path, what: &str, option: &str, names: &[String]) -> Result<()> {
    let mark = folder.join(format!("gdrd-{what}.json"));
    let there = names.iter().map(|name| folder.join(name)).find(|path| path.symlink_metadata().is_ok());
    if let (Some(file), false) = (there, mark.is_file()) {
        return Err(Error::recipe(format!(
            "`{}` would be overwritten, and no {what} of gdrd is known to have written it; name another folder with \
             `{option}`, or move the file",
            file.display()
        )));
    }
    files::make_folders(folder).map_err(|e| Error::io(folder, e))?;
    let text = serde_json::json!({format!("gdrd_{what}"): 1, "files": names}).to_string();
    write_atomically(&mark, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ablations_write_over_their_own_tables_alone() {
        let home = tempfile::tempdir().expect("a folder");
        let names = ["ablation.md", "ablation.csv"].map(String::from);
        std::fs::write(home.path().join("ablation.csv"), "mine").expect("written");
        let error = claim_ablation(home.path(), &names).expect_err("another's").to_string();
        assert!(error.contains("ablation.csv` would be overwritten"), "{error}");
        std::fs::remove_file(home.path().join("ablation.csv")).expect("removed");
        claim_ablation(home.path(), &names).expect("an empty folder");
        std::fs::write(home.path().join("ablation.md"), "ours").expect("written");
        claim_ablation(home.path(), &names).expect("its own");
    }
}
