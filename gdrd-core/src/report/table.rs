//! Tables, as Markdown, CSV and LaTeX.

use std::fmt::Write as _;

use crate::error::{Error, Result};

/// Where the cells of a column stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Align {
    /// At the left edge: words.
    #[default]
    Left,
    /// In the middle.
    Centre,
    /// At the right edge: numbers.
    Right,
}

/// The mean of the seeds of a row and, of more than one, their standard deviation.
pub(crate) fn mean_and_deviation(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt()))
}

/// The same as a cell: `88.06 ± 0.11`, or of one seed `88.06`.
pub(crate) fn mean_cell(values: &[f64]) -> String {
    match mean_and_deviation(values) {
        (mean, Some(deviation)) => format!("{mean:.2} ± {deviation:.2}"),
        (mean, None) => format!("{mean:.2}"),
    }
}

/// A header and rows of text; every row has one cell for each column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows, from the header and alignment of its columns.
    pub fn new<H: Into<String>>(columns: impl IntoIterator<Item = (H, Align)>) -> Self {
        Self { columns: columns.into_iter().map(|(header, align)| (header.into(), align)).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If it does not have one cell for each column.
    pub fn push<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) -> Result<()> {
        let cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        if cells.len() != self.columns.len() {
            return Err(Error::data(format!(
                "row {} of a table: expected {} cells, found {}",
                self.rows.len(),
                self.columns.len(),
                cells.len()
            )));
        }
        self.rows.push(cells);
        Ok(())
    }

    /// The rows, in the order in which they were added.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// A Markdown table (GitHub's), padded so that it reads well as plain text too. A bar in a cell
    /// is escaped, a line break becomes `<br>`.
    pub fn to_markdown(&self) -> String {
        let cell = |text: &String| one_line(text, "<br>").replace('|', "\\|");
        let header: Vec<String> = self.columns.iter().map(|(header, _)| cell(header)).collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        let widths: Vec<usize> = (0..header.len())
            .map(|at| rows.iter().chain([&header]).map(|row| row[at].chars().count()).max().unwrap_or(0).max(3))
            .collect();
        let mut out = String::new();
        let mut line = |cells: &[String]| {
            for ((cell, (_, align)), &width) in cells.iter().zip(&self.columns).zip(&widths) {
                let room = width.saturating_sub(cell.chars().count());
                let before = match align {
                    Align::Left => 0,
                    Align::Centre => room / 2,
                    Align::Right => room,
                };
                out.push_str("| ");
                out.extend(std::iter::repeat_n(' ', before));
                out.push_str(cell);
                out.extend(std::iter::repeat_n(' ', room - before + 1));
            }
            out.push_str("|\n");
        };
        line(&header);
        let rules: Vec<String> = self
            .columns
            .iter()
            .zip(&widths)
            .map(|((_, align), &width)| match align {
                Align::Left => "-".repeat(width),
                Align::Centre => format!(":{}:", "-".repeat(width - 2)),
                Align::Right => format!("{}:", "-".repeat(width - 1)),
            })
            .collect();
        line(&rules);
        rows.iter().for_each(|row| line(row));
        out
    }

    /// Comma-separated values as RFC 4180, but with plain line feeds: a cell with a comma, a quote,
    /// a line break or a space at its edge stands in quotes.
    pub fn to_csv(&self) -> String {
        let cell = |text: &str| {
            if text.contains([',', '"', '\n', '\r']) || text.trim() != text {
                format!("\"{}\"", text.replace('"', "\"\""))
            } else {
                text.to_string()
            }
        };
        let mut out = self.columns.iter().map(|(header, _)| cell(header)).collect::<Vec<_>>().join(",") + "\n";
        for row in &self.rows {
            out += &(row.iter().map(|text| cell(text)).collect::<Vec<_>>().join(",") + "\n");
        }
        out
    }

    /// The rows of an HTML table: its head and body, without the element `table` itself. `escape` makes HTML of text, `class` says
    /// what a row is.
    pub(super) fn to_html(
        &self,
        escape: &dyn Fn(&str) -> String,
        class: impl Fn(&[String]) -> Option<&'static str>,
    ) -> String {
        let side = |align: &Align| match align {
            Align::Left => "",
            Align::Centre => " class=\"c\"",
            Align::Right => " class=\"r\"",
        };
        let mut out = String::from("<thead>\n<tr>");
        // Writing to a string cannot fail.
        for (name, align) in &self.columns {
            let _ = match name.is_empty() {
                true => write!(out, "<td></td>"),
                false => write!(out, "<th scope=\"col\"{}>{}</th>", side(align), escape(name)),
            };
        }
        out += "</tr>\n</thead>\n<tbody>\n";
        for row in &self.rows {
            let class = class(row).map_or(String::new(), |class| format!(" class=\"{class}\""));
            let _ = write!(out, "<tr{class}>");
            for (at, (cell, (_, align))) in row.iter().zip(&self.columns).enumerate() {
                let _ = match at {
                    0 => write!(out, "<th scope=\"row\">{}</th>", escape(cell)),
                    _ => write!(out, "<td{}>{}</td>", side(align), escape(cell)),
                };
            }
            out += "</tr>\n";
        }
        out + "</tbody>\n"
    }

    /// A LaTeX `tabular` with the rules of the package `booktabs`; what LaTeX would read as a command
    /// is escaped.
    pub fn to_latex(&self) -> String {
        let letters: String = self
            .columns
            .iter()
            .map(|(_, align)| match align {
                Align::Left => 'l',
                Align::Centre => 'c',
                Align::Right => 'r',
            })
            .collect();
        let line = |cells: Vec<&String>| cells.into_iter().map(|text| latex(text)).collect::<Vec<_>>().join(" & ");
        let mut out = format!("\\begin{{tabular}}{{{letters}}}\n\\toprule\n");
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{} \\\\\n\\midrule", line(self.columns.iter().map(|(header, _)| header).collect()));
        for row in &self.rows {
            let _ = writeln!(out, "{} \\\\", line(row.iter().collect()));
        }
        out + "\\bottomrule\n\\end{tabular}\n"
    }
}

/// The text with `instead` in place of line breaks, and without space at the edges.
fn one_line(text: &str, instead: &str) -> String {
    text.trim().lines().map(str::trim).collect::<Vec<_>>().join(instead)
}

pub(super) fn latex(text: &str) -> String {
    let mut out = String::new();
    for c in one_line(text, " ").chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '<' => out.push_str("\\textless{}"),
            '>' => out.push_str("\\textgreater{}"),
            '|' => out.push_str("\\textbar{}"),
            '±' => out.push_str("$\\pm$"),
            '×' => out.push_str("$\\times$"),
            // A minus, not a hyphen.
            '\u{2212}' => out.push_str("$-$"),
            c => out.push(c),
        }
    }
    // A row that begins with a bracket would be read as the length of the line break before it.
    if out.starts_with('[') { format!("{{{out}}}") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new([("Loss", Align::Left), ("Accuracy %", Align::Right), ("p", Align::Centre)]);
        table.push(["GEN+DIS", "90.60 ± 0.3", "-"]).expect("three cells");
        table.push(["a|b, \"c\"", "8", "<0.01"]).expect("three cells");
        table
    }

    #[test]
    fn markdown() {
        let expected = "\
| Loss      |  Accuracy % |   p   |
| --------- | ----------: | :---: |
| GEN+DIS   | 90.60 ± 0.3 |   -   |
| a\\|b, \"c\" |           8 | <0.01 |
";
        assert_eq!(table().to_markdown(), expected);
    }

    #[test]
    fn csv() {
        let expected = "Loss,Accuracy %,p\nGEN+DIS,90.60 ± 0.3,-\n\"a|b, \"\"c\"\"\",8,<0.01\n";
        assert_eq!(table().to_csv(), expected);
        let mut breaks = Table::new([("a\nb", Align::Left)]);
        breaks.push([" x"]).expect("one cell");
        assert_eq!(breaks.to_csv(), "\"a\nb\"\n\" x\"\n");
        assert!(breaks.to_markdown().starts_with("| a<br>b |"));
    }

    #[test]
    fn latex_escapes() {
        let mut table = Table::new([("x_1", Align::Left), ("50 %", Align::Right)]);
        table.push(["[14] & {a}\\~^#$", "1 ± 2"]).expect("two cells");
        let expected = "\\begin{tabular}{lr}\n\\toprule\nx\\_1 & 50 \\% \\\\\n\\midrule\n\
            {[14] \\& \\{a\\}\\textbackslash{}\\textasciitilde{}\\textasciicircum{}\\#\\$} & 1 $\\pm$ 2 \\\\\n\
            \\bottomrule\n\\end{tabular}\n";
        assert_eq!(table.to_latex(), expected);
    }

    #[test]
    fn a_row_of_the_wrong_width_is_refused() {
        let error = table().push(["only"]).expect_err("one cell");
        assert_eq!(error.to_string(), "row 2 of a table: expected 3 cells, found 1");
    }
}
