//! Items in the file of an outcome: a list of numbers, as a string of `0` and `1` if it holds nothing else; and which they are.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest;

/// 16 hexadecimal digits for the names of items in their order, for [`Outcome::items_digest`](super::Outcome::items_digest). A
/// name says all that makes the item what it is: a probe's key in its dataset, for a pair both keys and whether they are the same
/// person.
pub fn digest_of_items<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for name in names {
        // With their lengths, so that no two lists give one text.
        text += &format!("{}:{}\n", name.as_ref().len(), name.as_ref());
    }
    digest::hex(&digest::of_bytes(text.as_bytes()))[..16].to_string()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Items {
    Bits(String),
    Numbers(Vec<f64>),
}

pub(super) fn serialize<S: Serializer>(items: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    if items.iter().all(|item| *item == 0.0 || *item == 1.0) {
        let text: String = items.iter().map(|item| if *item == 1.0 { '1' } else { '0' }).collect();
        return serializer.serialize_str(&text);
    }
    items.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let item = |(at, c)| match c {
        '0' => Ok(0.0),
        '1' => Ok(1.0),
        other => Err(D::Error::custom(format!("`items`, character {at}: expected 0 or 1, found {other:?}"))),
    };
    match Items::deserialize(deserializer)? {
        Items::Bits(text) => text.chars().enumerate().map(item).collect(),
        Items::Numbers(items) => Ok(items),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_items_have_one_digest_only_if_they_are_the_same() {
        let lists: [&[&str]; 5] = [&["ab", "c"], &["a", "bc"], &["c", "ab"], &["ab\n1:c"], &[]];
        let digests: std::collections::BTreeSet<String> = lists.iter().map(|list| digest_of_items(*list)).collect();
        assert!(digests.len() == 5 && digests.iter().all(|digest| digest.len() == 16), "{digests:?}");
        assert_eq!(digest_of_items(lists[0]), digest_of_items(lists[0].iter().map(ToString::to_string)));
    }
}
