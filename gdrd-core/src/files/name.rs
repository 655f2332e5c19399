//! Names of a recipe that become names of files.

/// The longest name, in bytes: file systems allow 255, and gdrd adds to it.
const LONGEST: usize = 100;

/// What [`is_name`] asks for, in words.
pub const NAME_RULE: &str = "letters, digits and `+-_.`, no dot at either end, at most 100 bytes, and no name that Windows \
                             keeps for itself";

/// What Windows takes for a device, with any ending.
const DEVICES: [&str; 22] = [
    "con", "prn", "aux", "nul", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8", "com9", "lpt1", "lpt2",
    "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
];

/// Whether a name may be a part of a file's name: see [`NAME_RULE`]. What is none could lead out of the folder, or be refused by
/// a file system.
pub fn is_name(name: &str) -> bool {
    let is_edge = name.is_empty() || name.starts_with('.') || name.ends_with('.');
    !is_edge && name.len() <= LONGEST && name.chars().all(is_plain) && !is_device(name)
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().to_lowercase();
    DEVICES.contains(&stem.as_str())
}

/// A name that [`is_name`], made from any text: other characters become `-`, and what is too long is cut.
pub fn plain_name(text: &str) -> String {
    let mut name: String = text.chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
    if name.is_empty() || name.starts_with('.') || is_device(&name) {
        name.insert(0, '-');
    }
    while name.len() > LONGEST {
        name.pop();
    }
    if name.ends_with('.') {
        name.pop();
        name.push('-');
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
        for good in ["lfw", "LFW-10_v1.0", "gen+dis", "Prüfung", "console", "com10", &"a".repeat(100)] {
            assert!(is_name(good), "{good}");
            assert_eq!(plain_name(good), good);
        }
        let long = ["ä".repeat(60), format!("{}.b", "a".repeat(99))];
        let bad =
            ["", ".", "..", "../x", "a/b", "a\\b", "/x", ".hidden", "a b", "a\nb", "a:b", "a\0", "a.", "NUL", "con.x"];
        for bad in bad.into_iter().chain(long.iter().map(String::as_str)) {
            assert!(!is_name(bad), "{bad:?}");
            assert!(is_name(&plain_name(bad)), "{bad:?}");
        }
    }
}
