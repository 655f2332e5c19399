//! Images of one person that come in one batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Dataset;
use crate::seed::{Stream, shuffled};

/// Images of a person follow each other, so that batches have several of each: what losses on pairs and triplets live
/// on. Every epoch still sees every sample once.
#[derive(Clone, Debug)]
pub struct Groups {
    size: usize,
    people: Arc<[Option<usize>]>,
}

impl Groups {
    /// Groups of `size` images, above 0, of the people of `dataset`. The images of a person that fill no group make a
    /// smaller one; strangers stand alone.
    pub fn new(size: usize, dataset: &dyn Dataset) -> Self {
        Self { size: size.max(1), people: (0..dataset.len()).map(|index| dataset.person(index)).collect() }
    }

    /// The samples of `order`, a random order of all, with each person's images in groups, and the groups in random order. A
    /// group that does not fit into what is left of a batch goes on in the next.
    pub(super) fn together(&self, order: &[usize], stream: &mut Stream) -> Vec<usize> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut open: BTreeMap<usize, usize> = BTreeMap::new();
        for &sample in order {
            let Some(person) = self.people[sample] else {
                groups.push(vec![sample]);
                continue;
            };
            match open.get(&person).filter(|at| groups[**at].len() < self.size) {
                Some(&at) => groups[at].push(sample),
                None => {
                    open.insert(person, groups.len());
                    groups.push(vec![sample]);
                }
            }
        }
        shuffled(stream, groups.len()).into_iter().flat_map(|at| std::mem::take(&mut groups[at])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn images_of_a_person_follow_each_other_and_none_is_lost() {
        // Person 0 has five images, 1 and 2 three each, 3 one; two strangers.
        let people: Vec<Option<usize>> =
            [0, 1, 0, 2, 9, 0, 1, 2, 9, 0, 1, 2, 0, 3].iter().map(|person| (*person < 9).then_some(*person)).collect();
        let groups = Groups { size: 2, people: people.clone().into() };
        let of = |number: u64| {
            let mut stream = Seed(7).stream("test", &[number]);
            let order = shuffled(&mut stream, people.len());
            groups.together(&order, &mut stream)
        };
        let order = of(0);
        let mut all = order.clone();
        all.sort_unstable();
        assert_eq!(all, (0..14).collect::<Vec<_>>());
        let pairs = order.windows(2).filter(|two| people[two[0]].is_some() && people[two[0]] == people[two[1]]).count();
        assert!(pairs >= 4, "0 has two pairs, 1 and 2 one each: {order:?}");
        assert_eq!(of(0), order, "a pure function of the seed");
        assert_ne!(of(1), order);
    }
}
