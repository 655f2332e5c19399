//! The texts of a recipe: its files and `--set` options, in one space of positions.

use std::path::{Path, PathBuf};

/// A piece of one of the texts in [`Sources`]: bytes `start` to `end` in their common space, which
/// alone identify text, line and column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Position of the first byte.
    pub start: usize,
    /// Position after the last byte.
    pub end: usize,
}

impl Span {
    /// The bytes from `start` up to `end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The empty piece at `start`.
    pub fn empty(start: usize) -> Self {
        Self { start, end: start }
    }
}

/// All texts that a recipe was made from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    texts: Vec<Source>,
}

#[derive(Clone, Debug)]
struct Source {
    name: String,
    folder: PathBuf,
    text: String,
    start: usize,
}

/// Where a [`Span`] starts, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location<'a> {
    /// The file as it was named, or `--set`.
    pub name: &'a str,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The whole line, without its end.
    pub text: &'a str,
    /// How many characters of the line the span covers; 0 for an empty span.
    pub width: usize,
}

impl Sources {
    /// Adds the text of a file; its positions begin at the returned one.
    pub fn add_file(&mut self, path: &Path, text: String) -> usize {
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        self.add(path.display().to_string(), folder, text)
    }

    /// Adds the text of a `--set` option; its positions begin at the returned one.
    pub fn add_set(&mut self, text: String) -> usize {
        self.add("--set".to_string(), PathBuf::new(), text)
    }

    fn add(&mut self, name: String, folder: PathBuf, text: String) -> usize {
        // One position lies between two texts, so that the end of a text belongs to it alone.
        let start = self.texts.last().map_or(0, |last| last.start + last.text.len() + 1);
        self.texts.push(Source { name, folder, text, start });
        start
    }

    fn source(&self, at: usize) -> Option<&Source> {
        let after = self.texts.partition_point(|source| source.start <= at);
        self.texts[..after].last().filter(|source| at <= source.start + source.text.len())
    }

    /// The names of the texts: files, and `--set`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(|source| source.name.as_str())
    }

    /// The folder that relative paths written at `span` start from: that of the file, or the
    /// current one (an empty path) for `--set`.
    pub fn folder_of(&self, span: Span) -> PathBuf {
        self.source(span.start).map_or_else(PathBuf::new, |source| source.folder.clone())
    }

    /// Text, line and column of `span`; none if it lies in no text.
    pub fn locate(&self, span: Span) -> Option<Location<'_>> {
        let source = self.source(span.start)?;
        let text = source.text.as_str();
        let at = span.start - source.start;
        let before = text.get(..at)?;
        let from = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[at..].find('\n').map_or(text.len(), |length| at + length);
        let end = (span.end - source.start).clamp(at, line_end);
        Some(Location {
            name: &source.name,
            line: before.matches('\n').count() + 1,
            column: text[from..at].chars().count() + 1,
            text: text[from..line_end].trim_end_matches('\r'),
            width: text.get(at..end)?.trim_end().chars().count(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_finds_its_text_line_and_column() {
        let mut sources = Sources::default();
        let file = sources.add_file(Path::new("recipes/a.toml"), "é = 1\r\nb = 22\n".to_string());
        let set = sources.add_set("c=3".to_string());
        assert_eq!(file, 0);
        let b = sources.locate(Span::new(8, 14)).expect("in the file");
        assert_eq!(b, Location { name: "recipes/a.toml", line: 2, column: 1, text: "b = 22", width: 6 });
        let one = sources.locate(Span::new(5, 6)).expect("in the file");
        assert_eq!((one.line, one.column, one.text), (1, 5, "é = 1"));
        let c = sources.locate(Span::new(set, set + 1)).expect("in the option");
        assert_eq!(c, Location { name: "--set", line: 1, column: 1, text: "c=3", width: 1 });
        assert_eq!(sources.locate(Span::empty(set + 4)), None);
        assert_eq!(sources.folder_of(Span::empty(2)), Path::new("recipes"));
        assert_eq!(sources.folder_of(Span::empty(set)), Path::new(""));
    }

    #[test]
    fn the_end_of_a_text_belongs_to_it() {
        let mut sources = Sources::default();
        sources.add_file(Path::new("a.toml"), "a = ".to_string());
        sources.add_set("b=1".to_string());
        let end = sources.locate(Span::empty(4)).expect("the end");
        assert_eq!((end.name, end.column, end.width), ("a.toml", 5, 0));
    }
}
