//! A checksum behind the bytes of a file, for files that are read through a memory map.
//!
//! The seal is the sha256 of the sha256 of each 4 MiB piece, so that all cores share a check, behind eight bytes that say what
//! it is: 40 bytes at the end of the file, which a reader leaves out.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"gdrdseal";
const PIECE: usize = 4 << 20;
const LENGTH: usize = MAGIC.len() + 32;

/// Makes the seal of bytes that are written one after the other.
#[derive(Default)]
pub(crate) struct Seal {
    piece: Sha256,
    filled: usize,
    whole: Sha256,
}

impl Seal {
    /// Takes note of bytes that are written.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.filled));
            self.piece.update(now);
            self.filled += now.len();
            if self.filled == PIECE {
                self.close();
            }
            bytes = later;
        }
    }

    /// What is written behind all other bytes.
    pub(crate) fn finish(mut self) -> [u8; LENGTH] {
        if self.filled > 0 {
            self.close();
        }
        let mut seal = [0; LENGTH];
        seal[..MAGIC.len()].copy_from_slice(MAGIC);
        seal[MAGIC.len()..].copy_from_slice(&self.whole.finalize());
        seal
    }

    fn close(&mut self) {
        self.whole.update(std::mem::take(&mut self.piece).finalize());
        self.filled = 0;
    }
}

/// Bytes with their seal behind them.
pub(crate) fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut seal = Seal::default();
    seal.update(bytes);
    [bytes, &seal.finish()].concat()
}

/// The bytes before the seal. Reads all of them once, on all cores.
///
/// # Errors
/// If there is no seal, or it is not that of these bytes; the error says which.
pub(crate) fn unsealed(file: &[u8]) -> Result<&[u8]> {
    let parts = file.split_at_checked(file.len().saturating_sub(LENGTH));
    let Some((bytes, seal)) = parts.filter(|(_, seal)| seal.starts_with(MAGIC)) else {
        return Err(Error::data("it has no checksum at its end: it is cut, or was written by another program"));
    };
    let pieces: Vec<[u8; 32]> = bytes.par_chunks(PIECE).map(|piece| Sha256::digest(piece).into()).collect();
    let found = Sha256::digest(pieces.as_flattened());
    match found[..] == seal[MAGIC.len()..] {
        true => Ok(bytes),
        false => Err(Error::data("its bytes do not fit its checksum: it is damaged")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_steps(bytes: &[u8], step: usize) -> Vec<u8> {
        let mut seal = Seal::default();
        bytes.chunks(step).for_each(|part| seal.update(part));
        [bytes, &seal.finish()].concat()
    }

    #[test]
    fn what_is_sealed_is_read_again_however_it_was_written() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let file = sealed(&bytes);
            assert_eq!(file, in_steps(&bytes, 100_003));
            assert_eq!(file, in_steps(&bytes, PIECE + 7));
            assert!(unsealed(&file).expect("whole") == bytes);
        }
    }

    #[test]
    fn every_change_is_found() {
        let file = sealed(&[7; 1000]);
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(unsealed(&damaged).is_err(), "byte {at}");
            assert!(unsealed(&file[..at]).is_err(), "cut to {at} bytes");
        }
        assert!(unsealed(&[&file[..], b"more"].concat()).is_err());
        assert!(unsealed(&vec![0; file.len()]).is_err(), "zeros");
    }
}
