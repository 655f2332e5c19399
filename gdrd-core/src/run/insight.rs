//! What a run sees of faces when it is over: embeddings in the plane, mistakes as pictures, milliseconds a face.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::assembly::Assembly;
use super::measure::{StudentEmbedder, each_of_teacher};
use crate::context::Host;
use crate::data::Dataset;
use crate::embedder::{Embedder, Embeddings};
use crate::error::{Context, Result};
use crate::evaluation::{Measured, Mistake, MistakenFace, Mistakes, Role, alignment, embed, tsne, uniformity};
use crate::face::{Face, Kernel};
use crate::nn::Inference;
use crate::nn::kernels::keep_awake;
use crate::plugin::DatasetName;
use crate::report::{Confused, Insight, Mistaken, Seen, ShownFace};
use crate::student::StudentFile;

/// People whose faces are embedded, those of them that are drawn in the plane, and faces of each.
const PEOPLE: usize = 30;
const SHOWN: usize = 10;
const FACES: usize = 10;
/// Height and width, in pixels, of a face on a page, at most.
const WIDE: usize = 112;
/// Faces that are timed, one by one.
const TIMED: usize = 9;

/// What the student of `file` and the teachers make of faces that the protocols measure on; `measured` says where it was wrong.
pub(super) fn insight(
    parts: &Assembly,
    file: &StudentFile,
    measured: &BTreeMap<String, Vec<Measured>>,
) -> Result<Insight> {
    let mut found = Insight::default();
    let student = StudentEmbedder::new(file, parts.device());
    let student = (student.width() > 0).then_some(student);
    if let Some(sample) = Sample::of(parts)? {
        found.data = sample.name.clone();
        found.faces = sample.indices.len();
        found.people = sample.names.len();
        found.shown = sample.names.iter().take(SHOWN).cloned().collect();
        if let Some(student) = &student {
            let fast = Fast::of(file, parts)?;
            let timed = fast.as_ref().map_or(student as &dyn Embedder, |fast| fast);
            found.embedders.push(sample.seen(student, timed, Role::Student, parts)?);
        }
        for name in parts.experiment().teachers.keys() {
            each_of_teacher(parts, name, |embedder, role, _| {
                found.embedders.push(sample.seen(embedder, embedder, role, parts)?);
                Ok(())
            })?;
        }
    }
    let Some(student) = &student else { return Ok(found) };
    for (name, rows) in measured {
        let Some(row) = rows.iter().find(|row| row.role == Role::Student) else { continue };
        let cx = parts.context();
        let mistakes =
            parts.protocol(name)?.mistakes(student, &row.outcome, &cx).at(|| format!("protocol `{name}`"))?;
        if let Some(mistakes) = mistakes {
            found.mistakes.insert(name.clone(), mistaken(&mistakes, file)?);
        }
    }
    Ok(found)
}

/// The faces that are looked at.
struct Sample {
    name: String,
    dataset: Arc<dyn Dataset>,
    indices: Vec<usize>,
    /// For each of them the number of its person, in the order of `names`.
    people: Vec<usize>,
    names: Vec<String>,
}

impl Sample {
    /// The people with most faces of the first dataset that a protocol names and that has people with two faces.
    fn of(parts: &Assembly) -> Result<Option<Self>> {
        for protocol in parts.experiment().evaluate.values() {
            for name in protocol.marked.iter().filter(|marked| marked.format == DatasetName::FORMAT) {
                let name = name.written.clone();
                let dataset = parts.context().dataset(&name)?;
                let mut faces: Vec<(usize, Vec<usize>)> =
                    (0..dataset.people().len()).map(|p| (p, Vec::new())).collect();
                for index in 0..dataset.len() {
                    if let Some(person) = dataset.person(index) {
                        faces[person].1.push(index);
                    }
                }
                faces.retain(|(_, faces)| faces.len() > 1);
                // Stable, so that of equally many faces the first person comes first.
                faces.sort_by_key(|(_, faces)| std::cmp::Reverse(faces.len()));
                faces.truncate(PEOPLE);
                if faces.len() < 2 {
                    continue;
                }
                let names = faces.iter().map(|(person, _)| dataset.people()[*person].clone()).collect();
                let rows =
                    || faces.iter().enumerate().flat_map(|(at, (_, f))| f.iter().take(FACES).map(move |i| (at, *i)));
                let (people, indices) = rows().unzip();
                return Ok(Some(Self { name, dataset, indices, people, names }));
            }
        }
        Ok(None)
    }

    fn seen(&self, embedder: &dyn Embedder, timed: &dyn Embedder, role: Role, parts: &Assembly) -> Result<Seen> {
        let embeddings = embed(embedder, &self.dataset, &self.indices, &parts.context())?;
        let shown = self.people.iter().take_while(|person| **person < SHOWN).count();
        let mut few = Embeddings::none(embeddings.width());
        let rows = (0..shown).flat_map(|row| embeddings.known(row).to_vec()).collect();
        few.append(Embeddings::from_rows(embeddings.width(), rows)?)?;
        let places = tsne(&few).into_iter().zip(&self.people);
        // More digits than a picture shows say nothing.
        let short = |value: f64| (value * 1000.0).round() / 1000.0;
        Ok(Seen {
            embedder: embedder.name().to_string(),
            role,
            alignment: alignment(&embeddings, &self.people),
            uniformity: uniformity(&embeddings),
            milliseconds: self.milliseconds(timed)?,
            points: places.map(|((x, y), person)| (*person, short(x), short(y))).collect(),
        })
    }

    /// The median time of one face, in milliseconds.
    fn milliseconds(&self, embedder: &dyn Embedder) -> Result<f64> {
        let face = |&index: &usize| self.dataset.face(index).at(|| self.dataset.place(index));
        let faces = self.indices.iter().take(TIMED).map(face).collect::<Result<Vec<Face>>>()?;
        // The first call of a network makes room for its maps.
        embedder.embed(&faces[..1])?;
        let mut times = Vec::with_capacity(faces.len());
        for face in faces {
            let begun = Instant::now();
            embedder.embed(&[face])?;
            times.push(1e3 * begun.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        Ok((times[times.len() / 2] * 1000.0).round() / 1000.0)
    }
}

/// The student as programs that embed run it, for its time alone.
struct Fast<'a> {
    file: &'a StudentFile,
    network: Inference,
}

impl<'a> Fast<'a> {
    fn of(file: &'a StudentFile, parts: &Assembly) -> Result<Option<Self>> {
        let network = if parts.device().is_cpu() { file.student.inference()? } else { None };
        Ok(network.map(|network| Self { file, network }))
    }
}

impl Embedder for Fast<'_> {
    fn name(&self) -> &str {
        "student"
    }

    fn width(&self) -> usize {
        self.file.header.card.embedding.unwrap_or(0)
    }

    fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
        let _awake = keep_awake();
        let size = self.file.header.card.input_size;
        let small = faces.iter().map(|face| self.file.header.prepare.apply(face)).collect::<Result<Vec<_>>>()?;
        let fill = |input: &mut [f32]| {
            small.iter().zip(input.chunks_exact_mut(3 * size * size)).try_for_each(|(face, to)| face.write(size, to))
        };
        let values = self.network.run(faces.len(), fill, <[f32]>::to_vec)?;
        Embeddings::from_rows(self.width(), values)
    }
}

fn mistaken(mistakes: &Mistakes, file: &StudentFile) -> Result<Mistaken> {
    let shown = |MistakenFace { dataset, index }: &MistakenFace| -> Result<ShownFace> {
        let face = dataset.face(*index).at(|| dataset.place(*index))?;
        let small = file.header.prepare.apply(&face)?;
        let whole = if face.width() > WIDE { face.resized(WIDE, Kernel::Bicubic, true)? } else { face };
        Ok(ShownFace { key: dataset.key(*index), whole: png(&whole)?, small: png(&small)? })
    };
    let confused = |Mistake { faces: [left, right], same, similarity }: &Mistake| -> Result<Confused> {
        Ok(Confused { same: *same, similarity: *similarity, faces: [shown(left)?, shown(right)?] })
    };
    let worst = mistakes.worst.iter().map(confused).collect::<Result<_>>()?;
    Ok(Mistaken { what: mistakes.what.clone(), count: mistakes.count, worst })
}

/// A face as PNG, in base64.
fn png(face: &Face) -> Result<String> {
    Ok(STANDARD.encode(crate::data::png(face)?))
}
