//! The photographs in a folder, and what their faces will be called.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use gdrd_core::data::is_image_name;
use gdrd_core::error::{Error, Result};

/// A photograph.
#[derive(Debug)]
pub(super) struct Photograph {
    pub(super) path: PathBuf,
    /// Its path in the folder of photographs, with `/` between its parts.
    pub(super) name: String,
    /// What the files of its faces begin with: the name without its ending, unless two photographs share that.
    pub(super) stem: String,
}

impl Photograph {
    /// The name of the file of a face, counted from 0.
    pub(super) fn face(&self, at: usize) -> String {
        match at {
            0 => format!("{}.png", self.stem),
            at => format!("{}.face{}.png", self.stem, at + 1),
        }
    }
}

/// All photographs in a folder, sorted by name, and the other files that were passed over. Names with a dot in front, and folders that a
/// link leads to again, are none of both.
pub(super) fn find(folder: &Path) -> Result<(Vec<Photograph>, Vec<String>)> {
    let (mut paths, mut others, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    collect(folder, &mut paths, &mut others, &mut seen)?;
    if paths.is_empty() {
        return Err(Error::data(format!("`{}` holds no photograph (JPEG, PNG, BMP, WebP or GIF)", folder.display())));
    }
    let mut named = Vec::new();
    for path in paths {
        match name_of(folder, &path) {
            Some(name) => named.push((name, path)),
            None => others.push(path.display().to_string()),
        }
    }
    named.sort();
    let mut stems: BTreeMap<String, usize> = BTreeMap::new();
    // File systems may take `A.png` and `a.png` for one file.
    named.iter().for_each(|(name, _)| *stems.entry(stem(name).to_lowercase()).or_default() += 1);
    let photograph = |(name, path): (String, PathBuf)| {
        let short = stem(&name);
        // The second face of `a.jpg` is `a.face2.png`.
        let taken = short.rsplit_once(".face").is_some_and(|(_, number)| number.parse::<usize>().is_ok());
        let stem = if taken || stems[&short.to_lowercase()] > 1 { name.clone() } else { short.to_string() };
        Photograph { path, name, stem }
    };
    Ok((named.into_iter().map(photograph).collect(), others))
}

/// A name without its ending.
fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The path in a folder as text; none if it is not UTF-8.
fn name_of(folder: &Path, path: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> = path.strip_prefix(folder).ok()?.iter().map(|part| part.to_str()).collect();
    parts.map(|parts| parts.join("/"))
}

fn collect(
    folder: &Path,
    found: &mut Vec<PathBuf>,
    others: &mut Vec<String>,
    seen: &mut BTreeSet<PathBuf>,
) -> Result<()> {
    let failed = |e| Error::io(folder, e);
    if !seen.insert(folder.canonicalize().map_err(failed)?) {
        return Ok(());
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, found, others, seen)?;
        } else if path.is_file() && is_image_name(&path) {
            found.push(path);
        } else {
            others.push(path.display().to_string());
        }
    }
    Ok(())
}

/// Refuses results inside the photographs, and photographs inside the results.
pub(super) fn keep_apart(photos: &Path, out: &Path) -> Result<()> {
    let photographs = photos.canonicalize().map_err(|e| Error::io(photos, e))?;
    if !photographs.is_dir() {
        return Err(Error::data(format!("`{}` is a file, expected a folder of photographs", photos.display())));
    }
    let results = real(out)?;
    if results.starts_with(&photographs) || photographs.starts_with(&results) {
        return Err(Error::recipe(format!(
            "`{}` and `{}` lie in each other; expected a folder for the results that has nothing to do with the photographs, which \
             are never written to",
            photos.display(),
            out.display()
        )));
    }
    Ok(())
}

/// Where a folder is that need not exist yet.
fn real(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(|e| Error::io(path, e))?;
    for above in path.ancestors() {
        if let Ok(there) = above.canonicalize() {
            return Ok(there.join(path.strip_prefix(above).unwrap_or(Path::new(""))));
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faces_of_two_photographs_have_two_names() {
        let folder = std::env::temp_dir().join(format!("gdrd-align-names-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("Ann")).expect("a folder");
        for name in ["Ann/1.jpg", "Ann/1.PNG", "Ann/2.jpg", "Ann/2.face2.jpg", "Ann/.hidden.jpg", "Ann/note.txt"] {
            std::fs::write(folder.join(name), "x").expect("written");
        }
        let (found, others) = find(&folder).expect("photographs");
        let names: Vec<(String, String)> = found.iter().map(|one| (one.face(0), one.face(1))).collect();
        let expected = [
            ("Ann/1.PNG.png", "Ann/1.PNG.face2.png"),
            ("Ann/1.jpg.png", "Ann/1.jpg.face2.png"),
            ("Ann/2.face2.jpg.png", "Ann/2.face2.jpg.face2.png"),
            ("Ann/2.png", "Ann/2.face2.png"),
        ];
        assert_eq!(names, expected.map(|(a, b)| (a.to_string(), b.to_string())));
        assert!(others.len() == 1 && others[0].ends_with("note.txt"), "{others:?}");
        assert!(keep_apart(&folder, &folder.join("new/deep")).is_err());
        assert!(keep_apart(&folder.join("Ann"), &folder).is_err());
        assert!(keep_apart(&folder.join("Ann"), &folder.join("Ann/../Bob")).is_ok());
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
