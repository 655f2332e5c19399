//! Names of a recipe that become names of files.

/// The longest name, in bytes: file systems allow 255, and gdrd adds to it.
const LONGEST: usize = 100;

/// What [`is_name`] asks for, in words.
pub const NAME_RULE: &str = "letters, digits and `+-_.`, no dot in front, at most 100 bytes";

/// Whether a name may be a part of a file's name: letters, digits, `+`, `-`, `_` and dots, not a dot in front, and not too
/// long. What is none could lead out of the folder, or be refused by a file system.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && name.len() <= LONGEST && name.chars().all(is_plain)
}

/// A name that [`is_name`], made from any text: other characters become `-`, and what is too long is cut.
pub fn plain_name(text: &str) -> String {
    let mut name: String = text.chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
    if name.is_empty() || name.starts_with('.') {
        name.insert(0, '-');
    }
    while name.len() > LONGEST {
        name.pop();
    }
    name
}

fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || "+-_.".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for good in ["lfw", "LFW-10_v1.0", "gen+dis", "Prüfung", &"a".repeat(100)] {
            assert!(is_name(good), "{good}");
            assert_eq!(plain_name(good), good);
        }
        for bad in ["", ".", "..", "../x", "a/b", "a\\b", "/x", ".hidden", "a b", "a\nb", "a:b", "a\0", &"ä".repeat(60)]
        {
            assert!(!is_name(bad), "{bad:?}");
            assert!(is_name(&plain_name(bad)), "{bad:?}");
        }
    }
}
