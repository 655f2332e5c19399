//! Checkpoints.

use gdrd_core::digest;
use gdrd_core::trainer::{Checkpoint, Position};

use crate::{folder, refused};

/// `position.json`, a NUL, `state.safetensors`: as they are, and with checksums that are right.
pub(crate) fn read(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (position, state) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let all = folder::path().join("checkpoints");
    folder::file("checkpoints/step-1/state.safetensors", state);
    folder::file("checkpoints/step-1/position.json", position);
    refused(Checkpoint::newest_good(&all));
    let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(position) else { return };
    let Ok(position) = serde_json::from_value::<Position>(value["position"].clone()) else { return };
    let state = digest::hex(&digest::of_bytes(state));
    value["seal"] = digest::of_value(&(&position, &state)).into();
    value["state"] = state.into();
    folder::file("checkpoints/step-1/position.json", value.to_string().as_bytes());
    refused(Checkpoint::newest_good(&all));
}
