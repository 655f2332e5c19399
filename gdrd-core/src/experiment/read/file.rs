//! What a recipe says that changes no training: `quoted`, and of the student's file `[calibration]` and `[licences]`.

use std::collections::BTreeMap;

use super::Reader;
use crate::recipe::diagnostic::Diagnostic;
use crate::recipe::licences::{LICENCES, LICENSED};
use crate::recipe::node::{Node, Table};
use crate::recipe::read::read_node;
use crate::student::CalibrationOptions;

/// The keys of a recipe that are read here.
pub(super) const KEYS: [&str; 2] = ["calibration", LICENCES];

impl Reader<'_> {
    /// What a publication prints for the system, if the recipe says; nothing where it is empty.
    pub(super) fn quoted(&mut self, table: &Table) -> Option<Option<String>> {
        let Some(node) = table.get("quoted") else { return Some(None) };
        let text = self.text(node)?.to_string();
        self.resolved.insert("quoted".into(), toml::Value::String(text.clone()));
        Some(Some(text).filter(|text| !text.is_empty()))
    }

    /// The table `[calibration]`, if there is one.
    pub(super) fn calibration(&mut self, table: &Table) -> Option<Option<CalibrationOptions>> {
        if table.get("calibration").is_none() {
            return Some(None);
        }
        let section = self.sub(table, "calibration")?;
        let (options, written) = self.options(section, CalibrationOptions::check)?;
        self.resolved.insert("calibration".into(), toml::Value::Table(written));
        Some(Some(options))
    }

    /// `"data.train" = "CC BY 4.0"`, for parts that the recipe has.
    pub(super) fn licences(&mut self, table: &Table) -> Option<BTreeMap<String, String>> {
        let Some(node) = table.get(LICENCES) else { return Some(BTreeMap::new()) };
        let licences: BTreeMap<String, String> = read_node(node).map_err(|found| self.problems.extend(found)).ok()?;
        for part in licences.keys() {
            let known = part.split_once('.').is_some_and(|(family, name)| {
                LICENSED.contains(&family)
                    && table.get(family).and_then(Node::as_table).is_some_and(|family| family.get(name).is_some())
            });
            if !known {
                let span = node.as_table().and_then(|table| table.key_span(part)).unwrap_or(node.span);
                let message = format!("`{part}`: expected a part of the recipe such as `data.train` or `teacher.NAME`");
                self.problems.push(Diagnostic::new(message, span));
            }
        }
        let written = licences.iter().map(|(part, text)| (part.clone(), toml::Value::String(text.clone()))).collect();
        self.resolved.insert("licences".into(), toml::Value::Table(written));
        Some(licences)
    }
}
