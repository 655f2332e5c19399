//! NumPy's arrays.

use crate::{folder, refused};

/// A `.npy` file.
pub(crate) fn read(bytes: &[u8]) {
    refused(gdrd_teachers::weights::read_npy(&folder::file("values.npy", bytes)));
}
