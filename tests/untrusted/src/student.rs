//! Student files.

use candle_core::Device;
use gdrd_student::{Face, FaceEncoder};

use crate::refused;

/// The bytes of a student file; one that opens must embed, or say why not.
pub(crate) fn read(bytes: &[u8]) {
    let Some(encoder) = refused(FaceEncoder::from_bytes(bytes, &Device::Cpu)) else { return };
    let size = encoder.header().card.input_size;
    let face = Face::new(size, size, vec![127; 3 * size * size]).expect("grey");
    if let Some(embeddings) = refused(encoder.embed(&[face])) {
        assert!(embeddings.values().iter().all(|value| value.is_finite()));
    }
}
