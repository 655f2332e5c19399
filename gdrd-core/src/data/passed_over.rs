//! What a dataset finds in its folders and does not read.

use std::path::Path;

use super::formats::READ;

/// What was found beside images.
#[derive(Default)]
pub(super) struct PassedOver {
    count: usize,
    first: Vec<String>,
}

impl PassedOver {
    pub(super) fn add(&mut self, path: &Path) {
        self.count += 1;
        if self.first.len() < 5 {
            self.first.push(format!("`{}`", path.display()));
        }
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let more = if self.count > self.first.len() { ", ..." } else { "" };
        let note =
            || format!("passed over, no image by name ({READ}): {}: {}{more}", self.count, self.first.join(", "));
        (self.count > 0).then(note).into_iter().collect()
    }
}
