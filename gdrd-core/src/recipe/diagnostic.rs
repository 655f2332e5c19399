//! One problem of a recipe, and all problems of a recipe together.

use std::fmt::{self, Write as _};

use super::source::{Sources, Span};
use crate::error::Error;
pub use crate::near::{list, nearest, no_such, suggest};

/// One problem of a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong and what was expected.
    pub message: String,
    /// Where; none when there is no text to point at.
    pub span: Option<Span>,
    /// What may help; each line is shown on a line of its own.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A problem at `span`.
    pub fn new(message: impl Into<String>, span: Span) -> Self {
        Self { message: message.into(), span: Some(span), hint: None }
    }

    /// A problem that no text shows.
    pub fn without_place(message: impl Into<String>) -> Self {
        Self { message: message.into(), span: None, hint: None }
    }

    /// The same problem with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A key that the table does not know; the hint names the nearest key and all of them.
    pub fn unknown_field<'a>(name: &str, span: Span, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(format!("unknown field `{}`", excerpt(name)), span).with_hint(suggest(name, known))
    }

    /// The problem with its place and the text there:
    ///
    /// ```text
    /// error: unknown field `paht`
    ///  --> lowres.toml:3:1
    ///   | paht = "x"
    ///   | ^^^^
    ///   = did you mean `path`?
    /// ```
    ///
    /// The last line has no end.
    pub fn render(&self, sources: &Sources) -> String {
        let mut text = format!("error: {}", self.message);
        if let Some(place) = self.span.and_then(|span| sources.locate(span)) {
            let (line, before, width) = around(place.text, place.column - 1, place.width.max(1));
            // Tabs stay tabs, so that the carets stand under the text at any tab width.
            let gap: String = line
                .chars()
                .map(|c| if c == '\t' { c } else { ' ' })
                .chain(std::iter::repeat(' '))
                .take(before)
                .collect();
            let _ = write!(text, "\n --> {}:{}:{}", place.name, place.line, place.column);
            let _ = write!(text, "\n  | {line}\n  | {gap}{}", "^".repeat(width));
        }
        for line in self.hint.iter().flat_map(|hint| hint.lines()) {
            let _ = write!(text, "\n  = {line}");
        }
        text
    }
}

/// Characters of a line that are shown; of a longer one only the part around the place.
const SHOWN: usize = 160;
/// Characters of a text of the recipe that stand in a message.
const QUOTED: usize = 80;

/// The part of a line around `width` characters from `column` (from 0) on; where they begin in it, and how many they are.
fn around(line: &str, column: usize, width: usize) -> (String, usize, usize) {
    let length = line.chars().count();
    if length <= SHOWN {
        return (line.to_string(), column, width);
    }
    // A place may lie behind the line, in the carriage returns that end it.
    let column = column.min(length);
    let from = column.saturating_sub(SHOWN / 2).min(length - SHOWN);
    let shown: String = line.chars().skip(from).take(SHOWN).collect();
    let (left, right) = (if from > 0 { "..." } else { "" }, if from + SHOWN < length { "..." } else { "" });
    let before = left.len() + column - from;
    (format!("{left}{shown}{right}"), before, width.min(SHOWN + left.len() - before).max(1))
}

/// A text for a message: as it is, or its beginning.
pub fn excerpt(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        None => text.to_string(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// All problems that were found in a recipe, with the texts that they point into.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The texts.
    pub sources: Sources,
    /// The problems, in the order of the texts.
    pub diagnostics: Vec<Diagnostic>,
}

impl Failure {
    /// The problems, sorted by place.
    pub fn new(sources: Sources, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by_key(|diagnostic| diagnostic.span);
        Self { sources, diagnostics }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, diagnostic) in self.diagnostics.iter().enumerate() {
            let gap = if at == 0 { "" } else { "\n" };
            write!(f, "{gap}{}", diagnostic.render(&self.sources))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::recipe(failure.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_problem_shows_its_line() {
        let mut sources = Sources::default();
        let text = "kind = \"iresnet\"\n\tpaht = \"x\"\n";
        sources.add_file(Path::new("lowres.toml"), text.to_string());
        let problem = Diagnostic::unknown_field("paht", Span::new(18, 22), ["depth", "path"]);
        let expected = "error: unknown field `paht`\n --> lowres.toml:2:2\n  | \tpaht = \"x\"\n  | \t^^^^\n  = did you mean `path`?\n  = known: depth, path";
        assert_eq!(problem.render(&sources), expected);
    }

    #[test]
    fn of_a_long_line_the_part_around_the_place_is_shown() {
        let mut sources = Sources::default();
        let text = format!("a = [{}], paht = 1{}\n", "é".repeat(78_000), " ".repeat(500));
        let at = text.find("paht").expect("there");
        sources.add_file(Path::new("long.toml"), text.clone());
        let rendered = Diagnostic::new("wrong", Span::new(at, at + 4)).render(&sources);
        let lines: Vec<&str> = rendered.lines().collect();
        assert_eq!(lines[1], " --> long.toml:1:78009");
        let column = |line: &str, what: &str| line[..line.find(what).expect("shown")].chars().count();
        assert_eq!(column(lines[2], "paht"), column(lines[3], "^^^^"));
        assert!(lines[2].starts_with("  | ...é") && lines[2].ends_with(" ..."), "{rendered}");
        assert!(lines.iter().all(|line| line.chars().count() < 200));
        // A span as long as the line, and one at the end of the line.
        for span in [Span::new(0, text.len()), Span::empty(text.len() - 1)] {
            let rendered = Diagnostic::new("wrong", span).render(&sources);
            assert!(rendered.lines().all(|line| line.chars().count() < 200) && rendered.ends_with('^'), "{rendered}");
        }
        let long = "x".repeat(78_000);
        let unknown = Diagnostic::unknown_field(&long, Span::empty(0), ["path"]).render(&sources);
        assert!(unknown.len() < 600, "{unknown}");
    }

    #[test]
    fn problems_come_in_the_order_of_the_text() {
        let mut sources = Sources::default();
        sources.add_file(Path::new("a.toml"), "a = 1\nb = 2".to_string());
        let problems = vec![
            Diagnostic::new("two", Span::new(6, 11)),
            Diagnostic::without_place("no place"),
            Diagnostic::new("one", Span::empty(0)),
        ];
        let failure = Failure::new(sources, problems);
        let expected = "error: no place\nerror: one\n --> a.toml:1:1\n  | a = 1\n  | ^\nerror: two\n --> a.toml:2:1\n  | b = 2\n  | ^^^^^";
        assert_eq!(failure.to_string(), expected);
        let error = Error::from(failure);
        assert_eq!(error.kind(), crate::error::ErrorKind::Recipe);
    }
}
