//! Students of the Hugging Face Hub, with the feature `hub`.
//!
//! A file is had once, from the network, and found in the cache from then on, which Python's `huggingface_hub` shares: `HF_HOME`,
//! `HF_TOKEN`, `HF_HUB_OFFLINE` and the proxies mean what they mean there.

use gdrd_core::error::{Context, Error, Result};
pub use gdrd_core::hub::{Hub, HubAddress, HubFile, LockedFile, Proxies, Settings, Token, Url};
pub use gdrd_core::observe::{Event, Flow, Observer, Silent};

use crate::FaceEncoder;

impl FaceEncoder {
    /// Opens a student file of the Hub, `hf://OWNER/NAME[@REVISION]/FILE`, on the CPU, and says which file it is: its commit, sha256
    /// and size. Keep that, and give it as `pin` the next time: then nothing but this file is opened, wherever the branch stands.
    /// Without a pin a branch or tag is what the cache says it is, and is looked up where the cache knows nothing of it.
    ///
    /// For a progress bar, another device or other kinds, give [`Hub::get`]'s file to
    /// [`open_with_kinds`](FaceEncoder::open_with_kinds).
    ///
    /// ```no_run
    /// use gdrd_student::{Error, FaceEncoder, hub::Hub};
    ///
    /// # fn main() -> Result<(), Error> {
    /// let address = "hf://ann/small-faces/student.safetensors";
    /// let (encoder, pin) = FaceEncoder::open_hub(&Hub::from_env()?, address, None)?;
    /// println!("{} {}", pin.commit, pin.sha256);
    /// let same = FaceEncoder::open_hub(&Hub::from_env()?, address, Some(&pin))?.0;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the address is none, the file is neither in the cache nor to be had from the network, its bytes are not those that the Hub or
    /// the pin names, or it is no student file.
    pub fn open_hub(hub: &Hub, address: &str, pin: Option<&LockedFile>) -> Result<(Self, LockedFile)> {
        let address: HubAddress = address.parse().map_err(Error::hub)?;
        let found = hub.get(&address, pin, &Silent)?;
        Ok((Self::open(found.path).at(|| address.to_string())?, found.locked))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    const STUDENT: &str = "../tests/files/student-format-1.safetensors";

    /// A Hub without a network, whose cache is the one that Python's client makes.
    fn offline(cache: &Path) -> Hub {
        Hub::new(Settings {
            // Nobody listens there.
            endpoint: Url::new("http://127.0.0.1:9"),
            cache: cache.into(),
            token: None,
            offline: Some("this is a test"),
            refresh: false,
            proxies: Proxies::default(),
            patience: Duration::from_secs(1),
            tries: 1,
            pause: Duration::ZERO,
        })
    }

    #[test]
    fn students_are_opened_from_the_shared_cache_and_held_to_their_pin() {
        let folder = tempfile::tempdir().expect("a folder");
        let repository = folder.path().join("models--ann--small-faces");
        let commit = "ab".repeat(20);
        let snapshot = repository.join("snapshots").join(&commit);
        for made in [&snapshot, &repository.join("refs")] {
            std::fs::create_dir_all(made).expect("a folder");
        }
        std::fs::write(repository.join("refs/main"), &commit).expect("written");
        std::fs::copy(STUDENT, snapshot.join("student.safetensors")).expect("copied");
        let hub = offline(folder.path());
        let address = "hf://ann/small-faces/student.safetensors";
        let (encoder, pin) = FaceEncoder::open_hub(&hub, address, None).expect("a student");
        assert_eq!(encoder.digest(), FaceEncoder::open(STUDENT).expect("a student").digest());
        assert_eq!((&pin.commit, pin.size), (&commit, std::fs::metadata(STUDENT).expect("a file").len()));
        FaceEncoder::open_hub(&hub, address, Some(&pin)).expect("the same");
        FaceEncoder::open_hub(&hub, &format!("hf://ann/small-faces@{commit}/student.safetensors"), None)
            .expect("at its commit");
        let said = |address: &str, pin: Option<&LockedFile>| {
            FaceEncoder::open_hub(&hub, address, pin).err().expect("refused").to_string()
        };
        let other = LockedFile { sha256: "0".repeat(64), ..pin.clone() };
        assert!(said(address, Some(&other)).contains("not the file that the lock names"));
        let elsewhere = LockedFile { commit: "cd".repeat(20), ..pin };
        assert!(said(address, Some(&elsewhere)).contains("this is a test"));
        assert!(said("hf://ann/other/student.safetensors", None).contains("not in the cache"));
        assert!(said("student.safetensors", None).contains("expected hf://"));
        std::fs::write(snapshot.join("notes.txt"), "no student").expect("written");
        let text = said("hf://ann/small-faces/notes.txt", None);
        assert!(text.contains("hf://ann/small-faces/notes.txt") && text.contains("safetensors"), "{text}");
    }
}
