//! Hints for a name that nobody knows.

/// A longer name, in bytes, is compared with none.
const LONGEST: usize = 160;

/// The name among `known` that `name` was probably meant to be.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST {
        return None;
    }
    let allowed = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// A hint for an unknown `name`: the nearest of `known`, and all of them.
pub fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?\n{}", list(known)),
        None => list(known),
    }
}

/// That no `what` is called `name`, and what there is, on one line.
pub fn no_such<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let (there, near) = match known.as_slice() {
        [] => ("there is none".to_string(), None),
        [one] => (format!("there is `{one}`"), None),
        _ => (format!("there are `{}`", known.join("`, `")), nearest(name, known.iter().copied())),
    };
    let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    format!("no {what} is called `{name}`; {there}{near}")
}

/// A hint that names all of `known`.
pub fn list<'a>(known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    if known.is_empty() { "nothing is known here".to_string() } else { format!("known: {}", known.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_near_name_is_suggested() {
        assert_eq!(nearest("irsnet", ["iresnet", "mine"]), Some("iresnet"));
        assert_eq!(nearest("weigth", ["depth", "weight"]), Some("weight"));
        assert_eq!(nearest("banana", ["iresnet", "mine"]), None);
        assert_eq!(suggest("banana", []), "nothing is known here");
    }
}
