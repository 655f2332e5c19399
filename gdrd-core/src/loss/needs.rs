//! What a loss has to be given, declared once, before anything is built.

use candle_core::Tensor;

use crate::context::BuildContext;
use crate::error::{Error, Result};
use crate::student::StudentCard;
use crate::teacher::Output;

/// An output of a teacher, as a loss asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Its embedding.
    Embedding,
    /// Its logits.
    Logits,
    /// The feature map of this name.
    Map(String),
    /// The feature map that the teacher means when none is named.
    DefaultMap,
}

/// An output of a teacher: of the named one, or of the only one that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TeacherNeed {
    /// The teacher's name in the recipe, if the options name one.
    pub teacher: Option<String>,
    /// What is wanted of it.
    pub output: Wanted,
}

/// What a loss has to be given. It is given this and nothing else, at its build ([`BuildContext::stage`]) and at every step
/// ([`LossInputs`](super::LossInputs)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Outputs of teachers; given at every step in this order.
    pub teachers: Vec<TeacherNeed>,
    /// The student's feature map.
    pub map: bool,
    /// Which of the student's feature maps that is, by its name ([`Student::maps`](crate::student::Student::maps)): one on the way
    /// to the backbone's, which it is when left out.
    pub student_map: Option<String>,
    /// The student's embedding.
    pub embedding: bool,
    /// Who the faces are. Faces of people whom nobody knows may be among them.
    pub labels: bool,
    /// The mean embedding of each person of the stage's data, by the teacher of the first need.
    pub centres: bool,
    /// Logits of another term of the same stage: of the named one, or of the only one that gives logits.
    pub logits_of: Option<Option<String>>,
    /// The student's view of the faces, and the student as a denoiser.
    pub denoiser: bool,
    /// Views of the same faces beside the student's, by their names in the recipe; given at every step in this order.
    pub views: Vec<String>,
    /// Views of the same faces, at the student's input size, of which the student's embeddings are wanted too, with their gradients;
    /// given at every step in this order.
    pub embeddings_of: Vec<String>,
    /// Whether the loss gives logits over the people of the stage's data, which other terms may use.
    pub gives_logits: bool,
}

impl Needs {
    /// One output of a teacher, and the student's embedding: what most distillation losses need.
    pub fn embedding_and(teacher: Option<&String>, output: Wanted) -> Self {
        let need = TeacherNeed { teacher: teacher.cloned(), output };
        Self { teachers: vec![need], embedding: true, ..Self::default() }
    }

    /// A feature map of a teacher, its own default when `tap` names none, and the student's map.
    pub fn map_and(teacher: Option<&String>, tap: Option<&String>) -> Self {
        let output = tap.cloned().map_or(Wanted::DefaultMap, Wanted::Map);
        Self { teachers: vec![TeacherNeed { teacher: teacher.cloned(), output }], map: true, ..Self::default() }
    }
}

/// An output of a teacher that a stage has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The teacher's name in the recipe.
    pub teacher: String,
    /// The output.
    pub output: Output,
    /// Its shape for one face.
    pub shape: Vec<usize>,
}

impl Offered {
    /// Values for one face.
    pub fn width(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a loss can know of its stage when it is built.
#[derive(Clone, Debug)]
pub struct StageFacts {
    /// The stage's name.
    pub name: String,
    /// The sizes of the student; `map` is of the map that the loss is given ([`Needs::student_map`]).
    pub student: StudentCard,
    /// Number of people in the stage's data; zero if nobody is known.
    pub people: usize,
    /// Number of faces of each of them.
    pub images: Vec<usize>,
    /// Number of faces in the stage's data.
    pub faces: usize,
    /// What was asked of teachers, in the order of [`Needs::teachers`].
    pub teachers: Vec<Offered>,
    /// Height and width of the faces in each view, in pixels, in the order of [`Needs::views`].
    pub views: Vec<usize>,
}

impl StageFacts {
    /// The student's embedding width.
    ///
    /// # Errors
    /// If it has none.
    pub fn embedding_width(&self) -> Result<usize> {
        self.student
            .embedding
            .ok_or_else(|| Error::component("this loss needs a student with an embedding; the student only denoises"))
    }
}

impl<'a> BuildContext<'a> {
    /// The stage of the loss that is built.
    ///
    /// # Errors
    /// If no loss is built.
    pub fn stage(&self) -> Result<&'a StageFacts> {
        self.facts().ok_or_else(|| Error::component("only losses have a stage"))
    }
}

/// Who the faces of a batch are.
pub struct Labels {
    people: Vec<Option<usize>>,
    known: Tensor,
    rows: Option<Tensor>,
}

impl Labels {
    /// From each face's person; `put` brings small tensors to the device.
    ///
    /// # Errors
    /// If the device fails.
    pub fn new(people: Vec<Option<usize>>, put: &mut dyn FnMut(Tensor) -> Result<Tensor>) -> Result<Self> {
        let known: Vec<u32> = people.iter().flatten().map(|person| *person as u32).collect();
        let rows: Vec<u32> =
            people.iter().enumerate().filter(|(_, person)| person.is_some()).map(|(row, _)| row as u32).collect();
        let all = rows.len() == people.len();
        let rows = if all { None } else { Some(put(Tensor::new(rows, &candle_core::Device::Cpu)?)?) };
        let known = put(Tensor::new(known, &candle_core::Device::Cpu)?)?;
        Ok(Self { people, known, rows })
    }

    /// The person of each face; none where nobody knows.
    pub fn people(&self) -> &[Option<usize>] {
        &self.people
    }

    /// The people who are known, in the order of their faces, `[known]`, u32.
    pub fn known(&self) -> &Tensor {
        &self.known
    }

    /// Whether no face of the batch is of a known person.
    pub fn is_empty(&self) -> bool {
        self.people.iter().all(Option::is_none)
    }

    /// The rows of `x` `[batch, ...]` whose people are known, `[known, ...]`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn of(&self, x: &Tensor) -> Result<Tensor> {
        match &self.rows {
            None => Ok(x.clone()),
            Some(rows) => Ok(x.index_select(rows, 0)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_people_are_passed_over() {
        let labels = Labels::new(vec![Some(3), None, Some(0)], &mut Ok).expect("labels");
        assert_eq!(labels.known().to_vec1::<u32>().expect("values"), [3, 0]);
        let x = Tensor::new(&[[1f32], [2.0], [3.0]], &candle_core::Device::Cpu).expect("x");
        assert_eq!(labels.of(&x).and_then(|x| Ok(x.to_vec2::<f32>()?)).expect("rows"), [[1.0], [3.0]]);
        assert!(!labels.is_empty());
    }
}
