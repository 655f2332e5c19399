//! The tables of runs for other texts: as Markdown, and as LaTeX with the package `booktabs`.

use super::html::{comparison, groups, protocols};
use super::page::matrix_table;
use super::paper;
use super::table::{Table, latex};
use super::view::{RunView, titles};
use super::{notes, results_table};
use crate::error::Result;

/// A table with what stands above and below it.
struct Captioned {
    caption: String,
    table: Table,
    notes: Vec<String>,
}

fn all(runs: &[RunView]) -> Result<Vec<Captioned>> {
    let mut found = Vec::new();
    for (shown, protocol, content) in protocols(runs) {
        let groups = groups(runs, protocol, content);
        if let Some(table) = comparison(&groups)?.filter(|_| runs.len() > 1) {
            found.push(Captioned { caption: format!("{shown}, all runs"), table, notes: Vec::new() });
        }
    }
    for (run, title) in runs.iter().zip(titles(runs)) {
        for (protocol, rows) in &run.measured {
            let Some(first) = rows.first() else { continue };
            let count = paper::count(first.outcome.items.len());
            let caption = format!("{title}, {protocol}: {count} {}", first.outcome.what);
            found.push(Captioned { caption, table: results_table(rows)?, notes: notes(rows) });
            for matrix in &first.outcome.matrices {
                let caption = format!("{title}, {protocol}, {}: {}", first.embedder, matrix.name);
                found.push(Captioned { caption, table: matrix_table(matrix)?, notes: Vec::new() });
            }
        }
    }
    let beside = paper::beside(runs)?.into_iter();
    found.extend(beside.map(|b| Captioned { caption: b.caption, table: b.table, notes: b.differences }));
    Ok(found)
}

/// Brings a table that is wider than a line to the line's width.
const WIDE: &str = "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}";

/// The tables of one run or of several as Markdown.
///
/// # Errors
/// If what was measured does not fit together.
pub fn markdown(runs: &[RunView]) -> Result<String> {
    let mut out = String::new();
    for Captioned { caption, table, notes } in all(runs)? {
        out += &format!("## {caption}\n\n{}\n", table.to_markdown());
        notes.iter().for_each(|note| out += &format!("- {note}\n"));
        out += "\n";
    }
    Ok(out)
}

/// The same as LaTeX: a `table` each, for `\input` in a document that has `\usepackage{booktabs,graphicx}`.
///
/// # Errors
/// As [`markdown`].
pub fn latex_tables(runs: &[RunView]) -> Result<String> {
    let mut out = String::from(
        "% Tables of gdrd, for \\input{tables.tex}; the document needs \\usepackage{booktabs,graphicx}.\n",
    );
    for (at, Captioned { caption, table, notes }) in all(runs)?.into_iter().enumerate() {
        let notes: String = notes.iter().map(|note| format!(" {}", latex(note))).collect();
        out += &format!(
            "\n\\begin{{table}}\n\\centering\\small\n\\caption{{{}.{notes}}}\n\\label{{tab:gdrd-{}}}\n{WIDE}{{!}}{{%\n{}}}\n\\end{{table}}\n",
            latex(&caption),
            at + 1,
            table.to_latex()
        );
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::{Figure, Matrix, Measured, Outcome, Role};

    #[test]
    fn the_points_of_a_curve_over_sizes_stand_in_a_table_with_their_intervals() {
        let columns = ["face's size", "accuracy, %", "95 % from", "to"].map(String::from).to_vec();
        let rows = vec![("8x8".to_string(), vec![70.0, 62.5, 77.5])];
        let outcome = Outcome {
            what: "pairs".into(),
            headline: "accuracy".into(),
            figures: vec![Figure::percent("accuracy", 0.9, 40).between(80.0, 100.0)],
            curves: Vec::new(),
            matrices: vec![Matrix { name: "Resolution".into(), columns, rows }],
            items: vec![1.0; 40],
            items_digest: String::new(),
        };
        let student = Measured { embedder: "student".into(), role: Role::Student, outcome };
        let run = RunView {
            name: "r".into(),
            seed: 7,
            measured: [("lfw".to_string(), vec![student])].into(),
            ..RunView::default()
        };
        let text = markdown(std::slice::from_ref(&run)).expect("tables");
        assert!(text.contains("90.00 [80.00, 100.00] %"), "{text}");
        assert!(text.contains("## r, seed 7, lfw, student: Resolution"), "{text}");
        assert!(text.contains("| 8x8         |       70.00 |     62.50 | 77.50 |"), "{text}");
        assert!(latex_tables(&[run]).expect("tables").contains("8x8 & 70.00 & 62.50 & 77.50"));
    }
}
