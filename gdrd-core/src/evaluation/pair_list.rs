//! The reader of LFW's `pairs.txt`.

use std::collections::BTreeMap;
use std::path::Path;

use super::pairs::Pair;
use crate::data::composed;
use crate::error::{Context, Error, Result};

/// An image as `pairs.txt` names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedImage {
    /// The person: the name of a folder.
    pub name: String,
    /// The number of the image, from one: `3` is `<name>_0003.jpg`; 0 if its word is no number.
    pub number: usize,
    /// The image as the list has it: its number, or what it is called.
    pub word: String,
}

impl NamedImage {
    fn new(name: &str, word: &str, any: bool) -> Option<Self> {
        let number = count(word).or(any.then_some(0))?;
        Some(Self { name: composed(name), number, word: composed(word) })
    }

    /// The keys that the image may have in a dataset, the likeliest first.
    pub fn keys(&self) -> Vec<String> {
        let Self { name, number, word } = self;
        let numbered = (*number > 0).then(|| format!("{name}/{name}_{number:04}"));
        numbered.into_iter().chain([format!("{name}/{word}")]).collect()
    }
}

/// One pair of `pairs.txt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairLine {
    /// The number of its line in the file, from one.
    pub line: usize,
    /// The first image.
    pub left: NamedImage,
    /// The second image.
    pub right: NamedImage,
    /// The fold, from zero.
    pub fold: usize,
}

/// The pairs of a file in the format of LFW's `pairs.txt`, before their images are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairList {
    /// The file, for errors.
    pub source: String,
    /// Every pair, in the order of the file.
    pub lines: Vec<PairLine>,
}

/// How many absent images an error names.
const NAMED: usize = 20;

impl PairList {
    /// Reads the file at `path`; see [`PairList::parse`].
    ///
    /// # Errors
    /// If the file cannot be read, or as `parse`.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = crate::files::read(path).map_err(|e| Error::io(path, e))?;
        let source = path.display().to_string();
        let text = String::from_utf8(bytes).map_err(|e| {
            Error::data(format!(
                "`{source}`: expected text in UTF-8, found other bytes at {}",
                e.utf8_error().valid_up_to()
            ))
        })?;
        Self::parse(&text, &source)
    }

    /// Reads `text`: a header `folds pairs-per-class` (or only `pairs-per-class`: one fold, as in
    /// `pairsDevTest.txt`), then for each fold that many lines `name i j` and that many lines
    /// `name1 i name2 j`. Words are separated by tabs, or by spaces in a line without tabs; numbers
    /// count from one, empty lines are skipped. Between tabs, an image may be named in the place of its number: `name a b` is
    /// `<name>/a.jpg` and `<name>/b.jpg`. Names are composed (Unicode NFC), as the keys of
    /// datasets are. `source` names the text in errors.
    ///
    /// # Errors
    /// If the text is anything else; the error names the line, what was expected and what was found.
    pub fn parse(text: &str, source: &str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rest =
            text.lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| !line.trim().is_empty());
        let wrong = |line: usize, expected: &str, found: &str| {
            Error::data(format!("`{source}` line {line}: expected {expected}, found `{}`", found.trim()))
        };
        let Some((line, header)) = rest.next() else {
            return Err(Error::data(format!("`{source}`: expected a header `folds pairs-per-class`, found no text")));
        };
        let numbers: Option<Vec<usize>> = header.split_whitespace().map(count).collect();
        let (folds, each) = match numbers.as_deref() {
            Some([each]) => (1, *each),
            Some([folds, each]) => (*folds, *each),
            _ => return Err(wrong(line, "a header `folds pairs-per-class` of numbers from 1", header)),
        };
        let total = folds.checked_mul(each).and_then(|n| n.checked_mul(2));
        let total = total.ok_or_else(|| wrong(line, "a header with a number of pairs that can be counted", header))?;
        let mut lines = Vec::new();
        for at in 0..total {
            let Some((line, words)) = rest.next() else {
                return Err(Error::data(format!(
                    "`{source}`: the header asks for {total} pairs ({folds} folds of {each} same and {each} different), \
                     found only {at}"
                )));
            };
            let pair = if at / each % 2 == 0 {
                same_pair(words)
                    .ok_or_else(|| wrong(line, "a same pair `name i j`, two image numbers from 1", words))?
            } else {
                different_pair(words).ok_or_else(|| {
                    wrong(line, "a different pair `name1 i name2 j`, two people, numbers from 1", words)
                })?
            };
            lines.push(PairLine { line, left: pair.0, right: pair.1, fold: at / (2 * each) });
        }
        match rest.next() {
            Some((line, words)) => Err(wrong(line, &format!("the end after {total} pairs, as the header says"), words)),
            None => Ok(Self { source: source.to_string(), lines }),
        }
    }

    /// The pairs as places in a dataset; `find` says where an image is.
    ///
    /// # Errors
    /// If images are absent: one error names all of them (the first 20, and how many more). If `find` fails.
    pub fn resolve<'a>(&'a self, find: impl Fn(&NamedImage) -> Result<Option<usize>>) -> Result<Vec<Pair>> {
        let mut absent: BTreeMap<&NamedImage, usize> = BTreeMap::new();
        let mut pairs = Vec::with_capacity(self.lines.len());
        for line in &self.lines {
            let mut place = |image: &'a NamedImage| {
                let found = find(image).at(|| format!("`{}` line {}", self.source, line.line))?;
                if found.is_none() {
                    absent.entry(image).or_insert(line.line);
                }
                // The zero is never seen: an absent image ends in an error.
                Ok::<_, Error>(found.unwrap_or(0))
            };
            let (left, right) = (place(&line.left)?, place(&line.right)?);
            pairs.push(Pair { left, right, same: line.left.name == line.right.name, fold: line.fold });
        }
        if absent.is_empty() {
            return Ok(pairs);
        }
        let mut message = format!("`{}`: {} images are not in the dataset:", self.source, absent.len());
        for (at, (image, line)) in absent.iter().take(NAMED).enumerate() {
            let comma = if at == 0 { "" } else { "," };
            message += &format!("{comma} {} {} (line {line})", image.name, image.word);
        }
        if absent.len() > NAMED {
            message += &format!(" and {} more", absent.len() - NAMED);
        }
        if let Some(sought) = absent.first_key_value().and_then(|(image, _)| image.keys().into_iter().next()) {
            message += &format!("; the first was sought as `{sought}` with the ending of an image");
        }
        Err(Error::data(message))
    }
}

/// The words of a line: between tabs, where a name may have spaces, or between spaces if there is no tab.
fn words_of(line: &str) -> Vec<&str> {
    match line.contains('\t') {
        true => line.split('\t').map(str::trim).filter(|word| !word.is_empty()).collect(),
        false => line.split_whitespace().collect(),
    }
}

/// A number from one.
fn count(word: &str) -> Option<usize> {
    word.parse().ok().filter(|&number| number >= 1)
}

fn same_pair(words: &str) -> Option<(NamedImage, NamedImage)> {
    let (words, any) = (words_of(words), words.contains('\t'));
    let [name, left, right] = words[..] else { return None };
    let image = |word| NamedImage::new(name, word, any);
    // An image compared with itself says nothing.
    Some((image(left)?, image(right)?)).filter(|(left, right)| left != right)
}

fn different_pair(words: &str) -> Option<(NamedImage, NamedImage)> {
    let (words, any) = (words_of(words), words.contains('\t'));
    let [left, i, right, j] = words[..] else { return None };
    let image = |name: &str, word| NamedImage::new(name, word, any);
    Some((image(left, i)?, image(right, j)?)).filter(|(left, right)| left.name != right.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "2\t1\nAnn\t1\t2\nAnn\t1\tBob\t3\n\nBob 2 3\r\nBob 1 Cy 1\n";

    #[test]
    fn names_may_have_spaces_between_tabs_and_accents_in_either_form() {
        let list = PairList::parse("1\t1\nAnn Lee\t1\t2\nZoe\u{308}\t1\tAnn Lee \t3\n", "p.txt").expect("good");
        let names: Vec<(&str, &str)> =
            list.lines.iter().map(|l| (l.left.name.as_str(), l.right.name.as_str())).collect();
        assert_eq!(names, [("Ann Lee", "Ann Lee"), ("Zo\u{eb}", "Ann Lee")]);
        // One person in two forms is no different pair.
        assert!(PairList::parse("1\t1\nA\t1\t2\nZoe\u{308}\t1\tZo\u{eb}\t3\n", "p.txt").is_err());
        assert!(PairList::parse("1 1\nAnn Lee 1 2\nA 1 B 1\n", "p.txt").is_err(), "spaces alone cannot tell");
    }

    #[test]
    fn a_list_is_read() {
        let list = PairList::parse(LIST, "p.txt").expect("good list");
        let read: Vec<_> = list.lines.iter().map(|l| (l.line, l.left.number, l.right.number, l.fold)).collect();
        assert_eq!(read, [(2, 1, 2, 0), (3, 1, 3, 0), (5, 2, 3, 1), (6, 1, 1, 1)]);
        let pairs = list.resolve(|image| Ok(Some(10 * image.name.len() + image.number))).expect("all present");
        assert_eq!(pairs[1], Pair { left: 31, right: 33, same: false, fold: 0 });
        assert_eq!(pairs.iter().map(|p| p.same).collect::<Vec<_>>(), [true, false, true, false]);
    }

    #[test]
    fn a_single_number_is_one_fold() {
        let list = PairList::parse("1\nAnn 1 2\nAnn 1 Bob 1", "p.txt").expect("one fold");
        assert_eq!(list.lines.len(), 2);
        assert!(list.lines.iter().all(|line| line.fold == 0));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let message = |text: &str| PairList::parse(text, "p.txt").expect_err(text).to_string();
        assert_eq!(message(""), "`p.txt`: expected a header `folds pairs-per-class`, found no text");
        assert!(message("0 3").starts_with("`p.txt` line 1: expected a header"));
        assert!(message("Ann 1 2").contains("found `Ann 1 2`"));
        assert!(message("1 99999999999999999999").starts_with("`p.txt` line 1"));
        assert!(message(&format!("{0} {0}", usize::MAX)).contains("can be counted"));
        assert!(message("1 1\nAnn 0 2\n").starts_with("`p.txt` line 2: expected a same pair"));
        assert!(message("1 1\nAnn 2 2\n").starts_with("`p.txt` line 2: expected a same pair"));
        assert!(message("1 1\nAnn 1 Bob 1\n").starts_with("`p.txt` line 2: expected a same pair"));
        assert!(message("1 1\nAnn 1 2\nAnn 1 Ann 2").starts_with("`p.txt` line 3: expected a different pair"));
        assert!(
            message("1 1\nAnn 1 2\n").contains("asks for 2 pairs (1 folds of 1 same and 1 different), found only 1")
        );
        assert!(message("1\nAnn 1 2\nAnn 1 Bob 1\nx").starts_with("`p.txt` line 4: expected the end after 2 pairs"));
    }

    #[test]
    fn all_absent_images_are_named_at_once() {
        let list = PairList::parse(LIST, "p.txt").expect("good list");
        let error = list.resolve(|image| Ok((image.name == "Ann").then_some(0))).expect_err("Bob and Cy");
        let expected = "`p.txt`: 4 images are not in the dataset: Bob 1 (line 6), Bob 2 (line 5), Bob 3 (line 3), Cy 1 (line 6); \
            the first was sought as `Bob/Bob_0001` with the ending of an image";
        assert_eq!(error.to_string(), expected);
        let mut text = "30\n".to_string();
        text += &(1..=30).map(|i| format!("Ann {i} {}\n", i + 1)).collect::<String>();
        text += &(1..=30).map(|i| format!("Ann {i} Bob 1\n")).collect::<String>();
        let error = PairList::parse(&text, "p.txt").and_then(|l| l.resolve(|_| Ok(None))).expect_err("all absent");
        assert!(error.to_string().contains(" and 12 more"), "{error}");
    }
}
