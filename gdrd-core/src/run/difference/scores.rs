//! The headlines that two runs share, compared item by item where the items are the same.

use std::collections::BTreeMap;

use super::super::lock::Lock;
use super::{Options, Score};
use crate::error::Result;
use crate::evaluation::{Measured, Unit, bootstrap};
use crate::seed::Seed;

/// The headlines that both runs have.
pub(super) fn scores(
    measured: &[BTreeMap<String, Vec<Measured>>; 2],
    recipes: &[Options; 2],
    locks: &[Lock; 2],
) -> Result<Vec<Score>> {
    let mut found = Vec::new();
    for (protocol, rows) in &measured[0] {
        let [first, second] = recipes.each_ref().map(|recipe| options_of(recipe, protocol));
        let same_protocol = locks[0].protocols.get(protocol) == locks[1].protocols.get(protocol);
        let same_faces = same_faces(&first, locks) && same_faces(&second, locks);
        for row in rows {
            let others = measured[1].get(protocol).into_iter().flatten();
            let Some(other) = others.into_iter().find(|other| other.role == row.role) else { continue };
            let (a, b) = (row.outcome.headline()?, other.outcome.headline()?);
            let (Some(value), Some(other_value)) = (a.value, b.value) else { continue };
            if a.name != b.name {
                continue;
            }
            let mut stream = Seed(7).stream("paired bootstrap", &[]);
            // Results of before there was a digest of items are the same where all of the protocol is.
            let known = !row.outcome.items_digest.is_empty() || same_protocol;
            let gap = match same_faces && known {
                true => bootstrap::difference(&[&other.outcome], &[&row.outcome], &mut stream).ok(),
                false => None,
            };
            let one = a.unit.of_one();
            let difference = gap.map(|gap| [gap.mean, gap.interval.low, gap.interval.high].map(|value| one * value));
            let unit = if a.unit == Unit::Percent { "%" } else { "" };
            found.push(Score {
                what: format!("{protocol}, {}", row.embedder),
                figure: a.name.clone(),
                values: [value, other_value],
                unit,
                difference,
                other_options: first != second,
            });
        }
    }
    Ok(found)
}

/// The options of a protocol.
fn options_of<'a>(recipe: &'a Options, protocol: &str) -> BTreeMap<&'a str, &'a str> {
    let begin = format!("evaluate.{protocol}.");
    recipe.iter().filter_map(|(key, value)| Some((key.strip_prefix(&begin)?, value.as_str()))).collect()
}

/// Whether the datasets that a protocol's options name hold the same faces in both runs: a digest of items knows their names alone.
fn same_faces(options: &BTreeMap<&str, &str>, locks: &[Lock; 2]) -> bool {
    options.values().all(|value| {
        let name = value.trim_matches('"');
        let [first, second] = locks.each_ref().map(|lock| lock.data.get(name).map(|data| &data.fingerprint));
        first == second
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{lock, recipe};
    use super::*;
    use crate::evaluation::{Figure, Outcome, Role};

    #[test]
    fn scores_are_paired_where_the_items_are_the_same() {
        let row = |items: &[f64], digest: &str| {
            let figure = Figure::percent("accuracy", items.iter().sum::<f64>() / items.len() as f64, items.len());
            let text = serde_json::json!({"what": "pairs", "headline": "accuracy", "figures": [figure], "items_digest": digest});
            let outcome = Outcome { items: items.to_vec(), ..serde_json::from_value(text).expect("an outcome") };
            let row = Measured { embedder: "student".into(), role: Role::Student, outcome };
            BTreeMap::from([("e".to_string(), vec![row])])
        };
        let (alike, other) = ("[evaluate.e]\ndata = 'd'\n", "[evaluate.e]\ndata = 'd'\nfolds = 5\n");
        let score = |second: &str, digest: &str, change: &dyn Fn(&mut Lock)| {
            let measured = [row(&[1.0, 0.0], "x"), row(&[1.0, 1.0], digest)];
            let mut found =
                scores(&measured, &[recipe(alike), recipe(second)], &[lock(|_| ()), lock(change)]).expect("scores");
            let one = found.remove(0);
            (one.difference.map(|[mean, ..]| mean), one.other_options)
        };
        // Another version of the protocol's options has another digest, and changes no item.
        let version = |lock: &mut Lock| drop(lock.protocols.insert("e".into(), "y".into()));
        assert_eq!(score(alike, "x", &version), (Some(50.0), false));
        assert_eq!(score(other, "x", &version), (Some(50.0), true));
        assert_eq!(score(alike, "z", &|_| ()), (None, false));
        // Other faces of the same names.
        let faces = |lock: &mut Lock| lock.data.get_mut("d").expect("d").fingerprint = "other".into();
        assert_eq!(score(alike, "x", &faces), (None, false));
    }
}
