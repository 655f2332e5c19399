//! Licences that a recipe states of its parts, where texts lie over each other.

use super::node::{Node, Table, Value};

/// The table of licences, `"data.train" = "CC BY 4.0"`.
pub(crate) const LICENCES: &str = "licences";
/// The sections whose parts have licences.
pub(crate) const LICENSED: [&str; 2] = ["data", "teacher"];

/// The table `below` without the licences of the parts that `above`, a layer over it, changes or takes out.
pub(super) fn without_outdated(mut below: Table, above: &Table) -> Table {
    let Some(mut entry) = below.take_entry(LICENCES) else { return below };
    if let Value::Table(stated) = &mut entry.node.value {
        for section in LICENSED {
            let changed = above.get(section).and_then(Node::as_table);
            for (name, _) in changed.into_iter().flat_map(Table::iter) {
                stated.take(&format!("{section}.{name}"));
            }
        }
    }
    below.insert(LICENCES, entry);
    below
}

#[cfg(test)]
mod tests {
    use super::super::node::parse;
    use super::*;

    #[test]
    fn a_licence_is_stated_of_the_part_as_it_was() {
        let below = "[data.a]\nkind = 'x'\n[data.b]\nkind = 'x'\n[teacher.t]\nkind = 'x'\n\
                     [licences]\n'data.a' = 'A'\n'data.b' = 'B'\n'teacher.t' = 'T'";
        let left = |above: &str| {
            let table = without_outdated(parse(below, 0).expect("TOML"), &parse(above, 0).expect("TOML"));
            let stated = table.get(LICENCES).and_then(Node::as_table).expect("a table");
            stated.iter().map(|(part, _)| part.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(left("[student]\nkind = 'y'"), "data.a data.b teacher.t");
        assert_eq!(left("[data.a]\nfolders = ['mine']\n[teacher.t]\nenabled = false"), "data.b");
        let none = without_outdated(parse("[data.a]", 0).expect("TOML"), &parse("[data.a]", 0).expect("TOML"));
        assert!(none.get(LICENCES).is_none());
    }
}
