//! Lists of pairs.

use gdrd_core::evaluation::pair_list::PairList;

use crate::{folder, refused};

/// A file in the format of LFW's `pairs.txt`.
pub(crate) fn read(bytes: &[u8]) {
    refused(PairList::read(&folder::file("pairs.txt", bytes)));
}
