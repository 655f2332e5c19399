//! What gdrd keeps as JSON: outcomes, locks, marks of run folders.

use gdrd_core::evaluation::Outcome;
use gdrd_core::run::{Lock, RunFolder};

use crate::{folder, refused};

/// The bytes of any of them.
pub(crate) fn read(bytes: &[u8]) {
    refused(Outcome::from_json(&String::from_utf8_lossy(bytes)));
    refused(Lock::read_file(&folder::file("run/lock.json", bytes)));
    folder::file("run/gdrd-run.json", bytes);
    refused(RunFolder::new(folder::path().join("run")).state());
}
