//! Stored features of teachers.

use gdrd_core::teacher::Stored;
use sha2::{Digest, Sha256};

use crate::{folder, refused};

/// A file of the store: as it is, and with a checksum that is right.
pub(crate) fn read(bytes: &[u8]) {
    refused(Stored::open(&folder::file("features/raw.safetensors", bytes)));
    let pieces: Vec<u8> = bytes.chunks(4 << 20).flat_map(Sha256::digest).collect();
    let sealed = [bytes, b"gdrdseal", &Sha256::digest(pieces)].concat();
    if let Some(stored) = refused(Stored::open(&folder::file("features/sealed.safetensors", &sealed))) {
        let mut row = vec![0.0; stored.shape().iter().product()];
        (0..stored.len().min(3)).for_each(|face| stored.copy(face, &mut row));
    }
}
