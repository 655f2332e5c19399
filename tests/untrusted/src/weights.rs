//! Weight files: safetensors, archives of PyTorch, and the pickles in them.

use gdrd_core::nn::weights::read_safetensors;
use gdrd_teachers::weights::read;

use crate::{folder, refused};

/// A safetensors file, as teachers and as checkpoints read it.
pub(crate) fn safetensors(bytes: &[u8]) {
    let path = folder::file("weights.safetensors", bytes);
    refused(read(&path, None, &[], |_| true));
    refused(read_safetensors(&path));
}

/// A `.pth` file of any kind.
pub(crate) fn archive(bytes: &[u8]) {
    let path = folder::file("weights.pth", bytes);
    refused(read(&path, None, &["encoder"], |_| true));
    refused(read(&path, Some("state_dict"), &[], |_| true));
}

/// A pickle: as the `data.pkl` of an archive whose checksums are right, and as the one of an older file.
pub(crate) fn pickle(bytes: &[u8]) {
    archive(&zip(&[("archive/data.pkl", bytes), ("archive/data/0", &[7; 64])]));
    archive(&[MAGIC, SYSTEM, bytes, b"\x80\x02]U\x010a.\x10\0\0\0\0\0\0\0", &[7; 64]].concat());
}

/// What older files begin with: a number and the version of their format.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.";
/// The machine that wrote it.
const SYSTEM: &[u8] = b"\x80\x02}U\x0dlittle_endian\x88s.";

/// An archive of files that are not compressed, as PyTorch writes it.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut all, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let (start, length) = (all.len() as u32, bytes.len() as u32);
        let mut common = [20u16, 0, 0, 0, 0].map(u16::to_le_bytes).concat();
        common.extend([crc32(bytes), length, length].map(u32::to_le_bytes).concat());
        common.extend([name.len() as u16, 0].map(u16::to_le_bytes).concat());
        all.extend([b"PK\x03\x04", common.as_slice(), name.as_bytes(), bytes].concat());
        directory.extend([b"PK\x01\x02\x14\0", common.as_slice(), &[0; 10], &start.to_le_bytes()].concat());
        directory.extend(name.as_bytes());
    }
    let (start, length, count) = (all.len() as u32, directory.len() as u32, files.len() as u16);
    all.extend(directory);
    all.extend(b"PK\x05\x06\0\0\0\0");
    all.extend([count, count].map(u16::to_le_bytes).concat());
    all.extend([length, start].map(u32::to_le_bytes).concat());
    all.extend([0, 0]);
    all
}

fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{'w': torch.ones(2)}` of a storage of this many values.
    const TENSOR: &[u8] = b"\x80\x02}U\x01wctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x10tQK\0K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs.";

    #[test]
    fn both_wrappings_reach_the_tensors() {
        for bytes in [
            zip(&[("archive/data.pkl", TENSOR), ("archive/data/0", &[7; 64])]),
            [MAGIC, SYSTEM, TENSOR, b"\x80\x02]U\x010a.\x10\0\0\0\0\0\0\0", &[7; 64]].concat(),
        ] {
            let path = folder::file("test.pth", &bytes);
            let found = read(&path, None, &[], |_| true).expect("tensors");
            assert_eq!(found["w"].dims(), [2]);
        }
    }
}
