//! For some probes of a search the nearest face of their own person and the nearest of another: what a mistake looks like.

use rayon::prelude::*;

use super::faces::Faces;
use super::mistakes::{Mistake, MistakenFace, Mistakes};
use super::rates::TIE;
use crate::context::BuildContext;
use crate::embedder::{Embedder, Embeddings};
use crate::error::Result;
use crate::nn::kernels::PackedRows;

/// Gallery faces that are packed at once, and the probes that a thread multiplies with them.
const BLOCK: usize = 1024;
const PROBES: usize = 192;

/// A probe that is looked at.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// Its place among the probes.
    pub(super) probe: usize,
    /// Its person; none if that one is not in the gallery.
    pub(super) person: Option<usize>,
    /// The person for whom it was taken, if only that one's faces count as another's.
    pub(super) taken_for: Option<usize>,
}

/// Faces that are searched: their embeddings, and the people whom they show.
pub(super) struct Part<'a> {
    faces: &'a Faces,
    embeddings: Embeddings,
    people: &'a [Option<usize>],
}

impl Part<'_> {
    /// The embeddings of its faces.
    pub(super) fn embeddings(&self) -> &Embeddings {
        &self.embeddings
    }
}

/// The first `count` of some faces, embedded.
///
/// # Errors
/// If a face cannot be read or embedded.
pub(super) fn part<'a>(faces: &'a Faces, count: usize, embedder: &dyn Embedder, cx: &BuildContext) -> Result<Part<'a>> {
    Ok(Part { faces, embeddings: faces.embed_some(embedder, 0..count, cx)?, people: &faces.people()[..count] })
}

/// The faces nearest to a probe: similarity, part of the gallery, place there.
#[derive(Clone, Copy, Default)]
pub(super) struct Nearest {
    own: Option<(f32, usize, usize)>,
    other: Option<(f32, usize, usize)>,
}

fn nearer(kept: &mut Option<(f32, usize, usize)>, found: (f32, usize, usize)) {
    if kept.is_none_or(|(similarity, ..)| found.0 > similarity) {
        *kept = Some(found);
    }
}

/// The nearest faces to each of `asked`, whose embeddings are among those of all `probes`.
///
/// # Errors
/// If widths differ.
pub(super) fn nearest(probes: &Embeddings, asked: &[Asked], gallery: &[Part<'_>]) -> Result<Vec<Nearest>> {
    let width = probes.width();
    let values: Vec<f32> = asked.iter().flat_map(|asked| probes.known(asked.probe)).copied().collect();
    let mut found = vec![Nearest::default(); asked.len()];
    for (number, part) in gallery.iter().enumerate() {
        for (block, rows) in part.embeddings.values().chunks(BLOCK * width).enumerate() {
            let packed = PackedRows::new(rows, width)?;
            let first = block * BLOCK;
            let people = &part.people[first..first + rows.len() / width];
            let probes = values.par_chunks(PROBES * width).zip(asked.par_chunks(PROBES));
            probes.zip(found.par_chunks_mut(PROBES)).try_for_each(|((values, asked), found)| {
                packed.products(values, |at, scores| {
                    let (asked, found) = (&asked[at], &mut found[at]);
                    for (place, (score, person)) in scores.iter().zip(people).enumerate() {
                        let face = (*score, number, first + place);
                        if person.is_some() && *person == asked.person {
                            nearer(&mut found.own, face);
                        } else if asked.taken_for.is_none() || *person == asked.taken_for {
                            nearer(&mut found.other, face);
                        }
                    }
                })
            })?;
        }
    }
    Ok(found)
}

/// The pair of a probe and a face of the gallery.
fn pair(
    probes: &Faces,
    asked: &Asked,
    (similarity, part, place): (f32, usize, usize),
    gallery: &[Part<'_>],
    same: bool,
) -> Mistake {
    let face = |faces: &Faces, place: usize| {
        let (dataset, index) = faces.place(place);
        MistakenFace { dataset, index }
    };
    let faces = [face(probes, asked.probe), face(gallery[part].faces, place)];
    Mistake { faces, same, similarity: f64::from(similarity) }
}

/// The probes `wrong`, which a search took for others: the worst of them beside the nearest face of their own person and beside the
/// one that was nearer by most. Those for which no face of another is nearer are counted only.
///
/// # Errors
/// As [`nearest`].
pub(super) fn taken_for_others(
    probes: (&Faces, &Embeddings),
    wrong: &[Asked],
    gallery: &[Part<'_>],
) -> Result<Mistakes> {
    let found = nearest(probes.1, wrong, gallery)?;
    let mut rows: Vec<_> = wrong
        .iter()
        .zip(found)
        .filter_map(|(asked, Nearest { own, other })| Some((asked, own?, other?)))
        .filter(|(_, own, other)| other.0 >= own.0 - TIE)
        .collect();
    // Stable, so that ties stay in the order of the probes.
    rows.sort_by(|a, b| (b.2.0 - b.1.0).total_cmp(&(a.2.0 - a.1.0)));
    rows.truncate(Mistakes::MOST);
    let own = rows.iter().map(|(asked, own, _)| pair(probes.0, asked, *own, gallery, true));
    let others = rows.iter().map(|(asked, _, other)| pair(probes.0, asked, *other, gallery, false));
    Ok(Mistakes { what: "probes".into(), worst: own.chain(others).collect(), count: wrong.len() })
}

/// The probes that a threshold judged wrongly: `missed` are of people in the gallery, `accepted` of nobody in it. The least similar of
/// the first beside the nearest face of their person, the most similar of the others beside the nearest face.
///
/// # Errors
/// As [`nearest`].
pub(super) fn by_threshold(
    probes: (&Faces, &Embeddings),
    missed: &[Asked],
    accepted: &[Asked],
    gallery: &[Part<'_>],
) -> Result<Mistakes> {
    let with = |asked: &[Asked], face: &dyn Fn(Nearest) -> Option<(f32, usize, usize)>| -> Result<Vec<_>> {
        let found = asked.iter().zip(nearest(probes.1, asked, gallery)?);
        Ok(found.filter_map(|(asked, found)| Some((*asked, face(found)?))).collect())
    };
    let (mut own, mut others) = (with(missed, &|found| found.own)?, with(accepted, &|found| found.other)?);
    own.sort_by(|a, b| a.1.0.total_cmp(&b.1.0));
    others.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    let own = own.iter().map(|(asked, face)| pair(probes.0, asked, *face, gallery, true));
    let others = others.iter().map(|(asked, face)| pair(probes.0, asked, *face, gallery, false));
    let worst = own.take(Mistakes::MOST).chain(others.take(Mistakes::MOST)).collect();
    Ok(Mistakes { what: "probes".into(), worst, count: missed.len() + accepted.len() })
}
