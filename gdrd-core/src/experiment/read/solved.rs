//! A stage that is solved in closed form.

use std::collections::BTreeMap;

use super::Reader;
use crate::closed_form::ClosedForm;
use crate::error::Problem;
use crate::experiment::StageSpec;
use crate::recipe::diagnostic::{Diagnostic, suggest};
use crate::recipe::node::{Entry, Node, Table};
use crate::trainer::StageOptions;

/// Keys of a stage that is solved, beside `closed_form`.
const SOLVED: [&str; 5] = ["data", "view", "batch_size", "augment", "store_features"];

impl Reader<'_> {
    /// A stage with the table `closed_form`.
    pub(super) fn solved_stage(
        &mut self,
        name: &str,
        plain: &Table,
        solved: &Node,
    ) -> Option<(StageSpec, toml::Table)> {
        let foreign: Vec<(&str, &Entry)> = plain.iter().filter(|(key, _)| !SOLVED.contains(key)).collect();
        for (key, entry) in &foreign {
            let message =
                format!("`{key}` does not apply to a stage with `closed_form`, which is solved and not trained");
            self.problems.push(Diagnostic::new(message, entry.key_span).with_hint(suggest(key, SOLVED)));
        }
        let solved = self.table(solved)?;
        let closed_form = self.options(solved, |_: &ClosedForm| Vec::new());
        if !foreign.is_empty() {
            return None;
        }
        let check = |options: &StageOptions| {
            let shift = Problem::unless(options.augment.shift == 0, "augment", || {
                format!("`shift`: expected 0 in a stage that is solved, found {}", options.augment.shift)
            });
            options.check().into_iter().filter(|problem| SOLVED.contains(&problem.key)).chain(shift).collect()
        };
        let (options, mut written) = self.options(plain, check)?;
        let registry = self.registry;
        let optimizer = self.or_default(None, "sgd", plain.span, &registry.optimizers, |c| c.check())?;
        let schedule = self.or_default(None, "constant", plain.span, &registry.schedules, |c| c.check())?;
        written.retain(|key, _| SOLVED.contains(&key));
        let (closed_form, table) = closed_form?;
        written.insert("closed_form".into(), toml::Value::Table(table));
        let (name, losses) = (name.to_string(), BTreeMap::new());
        Some((StageSpec { name, options, optimizer, schedule, losses, closed_form: Some(closed_form) }, written))
    }
}
