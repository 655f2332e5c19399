//! Checkpoints: complete, and there or not there, never half.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::nn::weights::read_safetensors;

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

impl Checkpoint {
    /// Writes `folder/step-N/` and removes all but the newest `keep` checkpoints.
    ///
    /// # Errors
    /// If something cannot be written; then older checkpoints stay and nothing of this one does.
    pub fn write(&self, folder: &Path, keep: usize) -> Result<PathBuf> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let target = folder.join(format!("step-{}", self.position.total_steps));
        let partial = folder.join(format!(".step-{}.partial", self.position.total_steps));
        let written = self.write_into(&partial).and_then(|()| {
            if target.exists() {
                std::fs::remove_dir_all(&target).map_err(|e| Error::io(&target, e))?;
            }
            std::fs::rename(&partial, &target).map_err(|e| Error::io(&target, e))
        });
        if let Err(error) = written {
            // The error that counts is the first one.
            let _ = std::fs::remove_dir_all(&partial);
            return Err(error.at("writing a checkpoint"));
        }
        for (_, old) in all(folder)?.into_iter().rev().skip(keep.max(1)) {
            std::fs::remove_dir_all(&old).map_err(|e| Error::io(&old, e))?;
        }
        Ok(target)
    }

    fn write_into(&self, folder: &Path) -> Result<()> {
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        std::fs::create_dir(folder).map_err(|e| Error::io(folder, e))?;
        let named = |prefix: &'static str, map: &BTreeMap<String, Tensor>| -> Vec<(String, Tensor)> {
            map.iter().map(|(name, tensor)| (format!("{prefix}.{name}"), tensor.clone())).collect()
        };
        let tensors = named("variable", &self.variables).into_iter().chain(named("optimizer", &self.optimizer));
        let bytes = safetensors::serialize(tensors, None).map_err(|e| Error::weights(e.to_string()))?;
        write_synced(&folder.join(STATE), &bytes)?;
        let position = serde_json::to_vec_pretty(&self.position).map_err(|e| Error::data(e.to_string()))?;
        write_synced(&folder.join(POSITION), &position)
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(POSITION);
        let text = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let position = serde_json::from_slice(&text).map_err(|e| Error::data(format!("`{}`: {e}", path.display())))?;
        let (mut variables, mut optimizer) = (BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in read_safetensors(&folder.join(STATE)).at(|| "reading a checkpoint".into())? {
            if let Some(name) = name.strip_prefix("variable.") {
                variables.insert(name.to_string(), tensor);
            } else if let Some(name) = name.strip_prefix("optimizer.") {
                optimizer.insert(name.to_string(), tensor);
            }
        }
        Ok(Self { position, variables, optimizer })
    }

    /// The newest checkpoint in `folder`, if there is one.
    pub fn newest(folder: &Path) -> Result<Option<PathBuf>> {
        Ok(if folder.exists() { all(folder)?.pop().map(|(_, path)| path) } else { None })
    }
}

/// All checkpoints of a folder, oldest first.
fn all(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let name = entry.file_name();
        if let Some(step) = name.to_str().and_then(|n| n.strip_prefix("step-")).and_then(|n| n.parse().ok()) {
            found.push((step, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Writes a file and waits until the disk has it.
fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(|e| Error::io(path, e))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| Error::io(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn checkpoint(step: u64) -> Checkpoint {
        let tensor = Tensor::new(&[step as f32], &Device::Cpu).expect("tensor");
        Checkpoint {
            position: Position { total_steps: step, stage: 0, stage_steps: step, recipe: "r".into() },
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
        let newest = Checkpoint::newest(folder.path()).expect("listed").expect("some");
        assert!(newest.ends_with("step-100") && !folder.path().join("step-3").exists());
        let read = Checkpoint::read(&newest).expect("read");
        assert_eq!(read.position, checkpoint(100).position);
        assert_eq!(read.variables["student.w"].to_vec1::<f32>().expect("values"), [100.0]);
        assert!(read.optimizer.contains_key("velocity.student.w"));
    }

    #[test]
    fn a_damaged_checkpoint_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = checkpoint(1).write(folder.path(), 2).expect("written");
        let state = path.join(STATE);
        let bytes = std::fs::read(&state).expect("read");
        std::fs::write(&state, &bytes[..bytes.len() - 2]).expect("cut");
        let error = Checkpoint::read(&path).err().expect("damaged").to_string();
        assert!(error.contains("state.safetensors"), "{error}");
    }
}
