//! Checkpoints: complete, and there or not there, never half; a damaged one is found out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::digest;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::files::{make_folder, read, remove, remove_empty, rename, sync_folder, write_atomically};
use crate::nn::weights::parse_safetensors;

/// Where a run was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Steps made since the run began, over all stages.
    pub total_steps: u64,
    /// The stage's place in the recipe's list, from 0; the number of stages when all are done.
    pub stage: usize,
    /// Steps made in that stage.
    pub stage_steps: u64,
    /// Digest of the recipe.
    pub recipe: String,
    /// Sha256 of the log of these steps; checkpoints of an older gdrd have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// Everything that the next step depends on. Random streams and the order of samples are functions of the step.
pub struct Checkpoint {
    /// Where the run was.
    pub position: Position,
    /// Student, loss variables and running statistics, by name.
    pub variables: BTreeMap<String, Tensor>,
    /// The optimiser's state, by name.
    pub optimizer: BTreeMap<String, Tensor>,
}

const STATE: &str = "state.safetensors";
const POSITION: &str = "position.json";

/// The content of [`POSITION`].
#[derive(Serialize, Deserialize)]
struct Sealed {
    position: Position,
    /// Sha256 of [`STATE`].
    state: String,
    /// Sha256 of the two fields above.
    seal: String,
}

impl Sealed {
    fn new(position: Position, state: String) -> Self {
        let seal = digest::of_value(&(&position, &state));
        Self { position, state, seal }
    }
}

/// A checkpoint and its folder.
pub(super) type Found = (PathBuf, Checkpoint);
/// The folder of a checkpoint and what is wrong with it.
pub(super) type Damaged = (PathBuf, Error);

impl Checkpoint {
    /// Writes `folder/step-N/` and removes all but the newest `keep` checkpoints.
    ///
    /// # Errors
    /// If something cannot be written; then older checkpoints stay and nothing of this one does.
    pub fn write(&self, folder: &Path, keep: usize) -> Result<PathBuf> {
        // The folder that it is in must be there: a run whose folder has vanished does not begin another one.
        make_folder(folder).map_err(|e| Error::io(folder, e))?;
        for name in names(folder)?.iter().filter(|name| is_partial(name)) {
            remove_checkpoint(&folder.join(name))?;
        }
        let target = folder.join(format!("step-{}", self.position.total_steps));
        let partial = folder.join(format!(".step-{}.partial", self.position.total_steps));
        let written = self.write_into(&partial).and_then(|()| {
            // One of this step that is there already was made by a run that went on from before it, and is the same.
            remove_checkpoint(&target)?;
            rename(&partial, &target).map_err(|e| Error::io(&target, e))?;
            sync_folder(folder)
        });
        if let Err(error) = written {
            // The error that counts is the first one.
            let _ = remove_checkpoint(&partial);
            return Err(error.at("writing a checkpoint"));
        }
        for (_, old) in all(folder)?.into_iter().rev().skip(keep.max(1)) {
            remove_checkpoint(&old)?;
        }
        Ok(target)
    }

    fn write_into(&self, folder: &Path) -> Result<()> {
        remove_checkpoint(folder)?;
        make_folder(folder).map_err(|e| Error::io(folder, e))?;
        let named = |prefix: &'static str, map: &BTreeMap<String, Tensor>| -> Vec<(String, Tensor)> {
            map.iter().map(|(name, tensor)| (format!("{prefix}.{name}"), tensor.clone())).collect()
        };
        let tensors = named("variable", &self.variables).into_iter().chain(named("optimizer", &self.optimizer));
        let bytes = safetensors::serialize(tensors, None).map_err(|e| Error::weights(e.to_string()))?;
        write_atomically(&folder.join(STATE), &bytes)?;
        let sealed = Sealed::new(self.position.clone(), digest::hex(&digest::of_bytes(&bytes)));
        let text = serde_json::to_vec_pretty(&sealed).map_err(|e| Error::data(e.to_string()))?;
        write_atomically(&folder.join(POSITION), &text)
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// If a file is missing, cannot be read, or is damaged ([`ErrorKind::Data`] or [`ErrorKind::Weights`]).
    pub fn read(folder: &Path) -> Result<Self> {
        let (path, state) = (folder.join(POSITION), folder.join(STATE));
        let missing = |path: &Path, e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => Error::data(format!("checkpoint `{}`: it is missing", path.display())),
            _ => Error::io(path, e),
        };
        let damaged = |path: &Path, why: &str| Error::data(format!("checkpoint `{}`: {why}", path.display()));
        let text = read(&path).map_err(|e| missing(&path, e))?;
        let sealed: Sealed = serde_json::from_slice(&text)
            .map_err(|e| damaged(&path, &format!("it is damaged, or of an older gdrd: {e}")))?;
        let Sealed { position, state: expected, seal } = sealed;
        if Sealed::new(position.clone(), expected.clone()).seal != seal {
            return Err(damaged(&path, "it is damaged: its checksum is another"));
        }
        // What is checked is what is used: the file could change between two looks at it.
        let bytes = read(&state).map_err(|e| missing(&state, e))?;
        if digest::hex(&digest::of_bytes(&bytes)) != expected {
            return Err(damaged(&state, "it is damaged: its checksum is another"));
        }
        let (mut variables, mut optimizer) = (BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in parse_safetensors(&bytes).at(|| format!("checkpoint `{}`", state.display()))? {
            if let Some(name) = name.strip_prefix("variable.") {
                variables.insert(name.to_string(), tensor);
            } else if let Some(name) = name.strip_prefix("optimizer.") {
                optimizer.insert(name.to_string(), tensor);
            }
        }
        Ok(Self { position, variables, optimizer })
    }

    /// The newest checkpoint in `folder` that is not damaged, if there is one, and those that are newer and damaged.
    ///
    /// # Errors
    /// If one cannot be read, for another reason than damage.
    pub fn newest_good(folder: &Path) -> Result<(Option<Found>, Vec<Damaged>)> {
        let mut damaged = Vec::new();
        for (_, path) in all(folder)?.into_iter().rev() {
            match Self::read(&path) {
                Ok(checkpoint) => return Ok((Some((path, checkpoint)), damaged)),
                Err(error) if matches!(error.kind(), ErrorKind::Data | ErrorKind::Weights) => {
                    damaged.push((path, error))
                }
                Err(error) => return Err(error),
            }
        }
        Ok((None, damaged))
    }

    /// The folders of all checkpoints in `folder`, oldest first.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
        Ok(all(folder)?.into_iter().map(|(_, path)| path).collect())
    }

    /// Gives a damaged checkpoint a name by which it is none, so that it takes no good one's place; the new path.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub fn put_aside(folder: &Path) -> Result<PathBuf> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let aside = folder.with_file_name(format!("{ASIDE}{name}"));
        remove_checkpoint(&aside)?;
        rename(folder, &aside).map_err(|e| Error::io(folder, e))?;
        Ok(aside)
    }

    /// Removes all checkpoints, good, damaged and half-written, from `folder`, and the folder if nothing else is in it.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn remove_all(folder: &Path) -> Result<()> {
        for name in names(folder)? {
            let plain = name.strip_prefix(ASIDE).unwrap_or(&name);
            if step(plain).is_some() || is_partial(&name) {
                remove_checkpoint(&folder.join(name))?;
            }
        }
        remove_empty(folder);
        Ok(())
    }
}

/// What stands before the name of a damaged checkpoint that was put aside.
const ASIDE: &str = "damaged-";

impl Checkpoint {
    /// Ends removals of checkpoints in `folder` that were cut off.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub(crate) fn finish_removals(folder: &Path) -> Result<()> {
        let cut_off = |path: &PathBuf| !path.join(POSITION).exists();
        all(folder)?
            .iter()
            .map(|(_, path)| path)
            .filter(|path| cut_off(path))
            .try_for_each(|path| remove_checkpoint(path))
    }
}

/// Removes the files of a checkpoint and its folder; what else is in there stays, and so does the folder then.
fn remove_checkpoint(folder: &Path) -> Result<()> {
    if folder.is_symlink() {
        return remove(folder);
    }
    // The position first: without it nobody takes the rest for a checkpoint.
    [POSITION, STATE].iter().try_for_each(|name| remove(&folder.join(name)))?;
    for name in names(folder)?.iter().filter(|name| crate::files::is_partial(name)) {
        remove(&folder.join(name))?;
    }
    remove_empty(folder);
    Ok(())
}

/// The names in a folder; none if there is no folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(folder, error)),
    };
    let name = |entry: std::io::Result<std::fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect::<std::io::Result<_>>().map_err(|e| Error::io(folder, e))
}

fn step(name: &str) -> Option<u64> {
    name.strip_prefix("step-").and_then(|number| number.parse().ok())
}

fn is_partial(name: &str) -> bool {
    name.starts_with(".step-") && name.ends_with(".partial")
}

/// All checkpoints of a folder, oldest first.
fn all(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found: Vec<_> =
        names(folder)?.iter().filter_map(|name| step(name).map(|step| (step, folder.join(name)))).collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn checkpoint(step: u64) -> Checkpoint {
        let tensor = Tensor::new(&[step as f32], &Device::Cpu).expect("tensor");
        Checkpoint {
            position: Position { total_steps: step, stage: 0, stage_steps: step, recipe: "r".into(), log: None },
            variables: BTreeMap::from([("student.w".into(), tensor.clone())]),
            optimizer: BTreeMap::from([("velocity.student.w".into(), tensor)]),
        }
    }

    #[test]
    fn what_is_written_is_read_and_old_ones_go() {
        let folder = tempfile::tempdir().expect("a folder");
        for step in [3, 20, 100] {
            checkpoint(step).write(folder.path(), 2).expect("written");
        }
        let (newest, damaged) = Checkpoint::newest_good(folder.path()).expect("listed");
        let (newest, read) = newest.expect("some");
        assert!(newest.ends_with("step-100") && damaged.is_empty() && !folder.path().join("step-3").exists());
        assert_eq!(read.position, checkpoint(100).position);
        assert_eq!(read.variables["student.w"].to_vec1::<f32>().expect("values"), [100.0]);
        assert!(read.optimizer.contains_key("velocity.student.w"));
    }

    #[test]
    fn every_damage_is_found_and_the_older_checkpoint_is_used() {
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 6] = [
            ("state.safetensors", |at| std::fs::remove_file(at).expect("removed")),
            ("state.safetensors", halve),
            ("state.safetensors", flip_last),
            ("position.json", |at| std::fs::remove_file(at).expect("removed")),
            ("position.json", |at| std::fs::write(at, "").expect("emptied")),
            ("position.json", |at| {
                let text = std::fs::read_to_string(at).expect("read");
                std::fs::write(at, text.replace("\"total_steps\": 20", "\"total_steps\": 21")).expect("changed");
            }),
        ];
        for (file, damage) in damages {
            let folder = tempfile::tempdir().expect("a folder");
            for step in [3, 20] {
                checkpoint(step).write(folder.path(), 2).expect("written");
            }
            damage(&folder.path().join("step-20").join(file));
            let (found, damaged) = Checkpoint::newest_good(folder.path()).expect("one is good");
            let (path, read) = found.expect("one is good");
            assert!(path.ends_with("step-3") && read.position.total_steps == 3);
            assert_eq!(damaged.len(), 1);
            assert!(damaged[0].1.to_string().contains(file), "{}", damaged[0].1);
            // Put aside, it does not push the good one out.
            let aside = Checkpoint::put_aside(&damaged[0].0).expect("renamed");
            checkpoint(4).write(folder.path(), 2).expect("written");
            assert!(aside.exists() && folder.path().join("step-3").exists());
            std::fs::create_dir(folder.path().join(".step-9.partial")).expect("what a kill leaves");
            checkpoint(5).write(folder.path(), 1).expect("written");
            assert!(!folder.path().join(".step-9.partial").exists() && !folder.path().join("step-3").exists());
            Checkpoint::remove_all(folder.path()).expect("removed");
            assert!(!folder.path().exists());
        }
    }

    fn halve(path: &Path) {
        let bytes = std::fs::read(path).expect("read");
        std::fs::write(path, &bytes[..bytes.len() / 2]).expect("cut");
    }

    fn flip_last(path: &Path) {
        let mut bytes = std::fs::read(path).expect("read");
        *bytes.last_mut().expect("some") ^= 1;
        std::fs::write(path, bytes).expect("written");
    }
}
