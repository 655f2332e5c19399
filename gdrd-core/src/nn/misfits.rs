//! What does not fit between a network and the tensors of a file.

use std::collections::BTreeMap;

use candle_core::{Shape, Tensor};

use crate::error::{Error, Result};

/// Values that may stand in for misfits, beside as many as the file has, and what each misfit counts at least.
const MOST: usize = 1 << 22;
const LEAST: usize = 1 << 10;
/// Misfits of each sort that an error names.
const SHOWN: usize = 20;

/// What does not fit, by sort.
#[derive(Default)]
pub(super) struct Misfits {
    pub(super) missing: Vec<String>,
    pub(super) unused: Vec<String>,
    pub(super) misshapen: Vec<String>,
    pub(super) not_finite: Vec<String>,
    /// Values that stand in for those that do not fit.
    pub(super) stood_in: usize,
}

impl Misfits {
    /// Allows a tensor to stand in for a misfit of a file with these tensors. What a file asks for by its options may be larger
    /// than any memory, or never end.
    pub(super) fn stand_in(&mut self, shape: &Shape, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let count = shape.dims().iter().try_fold(1usize, |count, size| count.checked_mul(*size));
        let values: usize = tensors.values().map(Tensor::elem_count).sum();
        let stood_in = count.and_then(|count| self.stood_in.checked_add(count.max(LEAST)));
        match stood_in.filter(|stood_in| *stood_in <= MOST + values) {
            Some(stood_in) => {
                self.stood_in = stood_in;
                Ok(())
            }
            None => Err(Error::weights(format!("a tensor of {:?}, and more than the file could hold", shape.dims()))),
        }
    }

    pub(super) fn compare(&mut self, name: &str, expected: &Shape, found: &Shape) {
        if expected != found {
            self.misshapen.push(format!("`{name}` expected {:?}, found {:?}", expected.dims(), found.dims()));
        }
    }

    pub(super) fn empty(&mut self, name: &str, found: &Shape) {
        self.misshapen.push(format!("`{name}` holds no values: {:?}", found.dims()));
    }

    /// # Errors
    /// All of them, if there are any.
    pub(super) fn into_result(self) -> Result<()> {
        let mut lines = Vec::new();
        let mut list = |what: &str, items: &[String], shown: &dyn Fn(&String) -> String| {
            if !items.is_empty() {
                lines.push(format!("{} {what}:", items.len()));
                lines.extend(items.iter().take(SHOWN).map(|item| format!("  {}", shown(item))));
                if items.len() > SHOWN {
                    lines.push(format!("  and {} more", items.len() - SHOWN));
                }
            }
        };
        let nearest = |name: &String| {
            let best = self.unused.iter().map(|other| (strsim::jaro_winkler(name, other), other));
            match best.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.85) {
                Some((_, other)) => format!("`{name}` (nearest in the file: `{other}`)"),
                None => format!("`{name}`"),
            }
        };
        list("missing", &self.missing, &nearest);
        list("with another shape", &self.misshapen, &String::clone);
        list("not known to the network", &self.unused, &|name| format!("`{name}`"));
        list("with a value that is not finite", &self.not_finite, &String::clone);
        match lines.is_empty() {
            true => Ok(()),
            false => Err(Error::weights(format!("tensors do not fit\n{}", lines.join("\n")))),
        }
    }
}
