//! Faces of the batches before, with which a loss compares a batch.

use candle_core::{DType, Device, Tensor, Var};

use crate::error::{Error, Result};
use crate::nn::Weights;
use crate::nn::kernels::put;

/// A place in which no face stands yet, and a face of a stranger, where others have the number of their person.
const EMPTY: f32 = -2.0;
const STRANGER: f32 = -1.0;

/// The newest faces before this batch, at most `capacity`: some rows of each, and who it is. They lie in buffers, so
/// that checkpoints hold them, a resumed run has them, and a step that is refused puts them back. Reading who they
/// are waits for the device.
pub struct Queue {
    rows: Vec<Var>,
    people: Var,
}

/// What a queue holds before a step, newest first: `held` faces.
pub struct Held {
    /// The rows, `[held, width]` each, in the order in which the queue was made. They have no gradient.
    pub rows: Vec<Tensor>,
    /// Who the faces are; none for strangers.
    pub people: Vec<Option<usize>>,
}

impl Queue {
    /// An empty queue of `capacity` faces with rows of these names and widths, in `weights`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn new(capacity: usize, rows: &[(&str, usize)], weights: &Weights) -> Result<Self> {
        let weights = weights.pp("queue");
        let row = |(name, width): &(&str, usize)| weights.buffer(name, (capacity, *width), 0.0);
        Ok(Self {
            rows: rows.iter().map(row).collect::<Result<_>>()?,
            people: weights.buffer("people", capacity, EMPTY)?,
        })
    }

    /// The faces that it holds. Later changes of the queue do not change them.
    ///
    /// # Errors
    /// If the device fails.
    pub fn held(&self) -> Result<Held> {
        let numbers = self.people.as_detached_tensor().to_vec1::<f32>()?;
        let person = |number: &f32| (*number >= 0.0).then_some(*number as usize);
        let people: Vec<_> = numbers.iter().take_while(|number| **number != EMPTY).map(person).collect();
        let rows = self.rows.iter().map(|var| Ok(var.as_detached_tensor().narrow(0, 0, people.len())?.copy()?));
        Ok(Held { rows: rows.collect::<Result<_>>()?, people })
    }

    /// Puts a batch before all others; the oldest that have no room are forgotten.
    ///
    /// # Errors
    /// If the rows are not those of the queue, or the device fails.
    pub fn push(&self, rows: &[&Tensor], people: &[Option<usize>]) -> Result<()> {
        if rows.len() != self.rows.len() {
            return Err(Error::component(format!("a queue of {} rows was given {}", self.rows.len(), rows.len())));
        }
        let number = |person: &Option<usize>| person.map_or(STRANGER, |person| person as f32);
        let people = Tensor::from_vec(people.iter().map(number).collect(), people.len(), &Device::Cpu)?;
        let people = put(&people, self.people.device())?;
        let all = self.rows.iter().zip(rows.iter().copied()).chain([(&self.people, &people)]);
        for (var, new) in all {
            let (capacity, new) = (var.dim(0)?, new.detach().to_dtype(DType::F32)?);
            let taken = new.dim(0)?.min(capacity);
            let kept = var.as_detached_tensor().narrow(0, 0, capacity - taken)?;
            var.set(&Tensor::cat(&[&new.narrow(0, 0, taken)?, &kept], 0)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_faces_stay_and_what_was_read_does_not_change() {
        let draw = std::rc::Rc::new(|_: &str, count, init| match init {
            crate::nn::Init::Constant(value) => vec![value; count],
            other => panic!("expected constants, found {other:?}"),
        });
        let build = |weights: &Weights| Queue::new(3, &[("row", 2)], weights);
        let (queue, made) = Weights::create(&Device::Cpu, draw, build).expect("a queue");
        assert_eq!(made.buffers.keys().collect::<Vec<_>>(), ["queue.people", "queue.row"]);
        assert!(made.parameters.is_empty(), "nothing in it is trained");
        assert!(queue.held().expect("nothing").people.is_empty());
        let rows = |values: &[[f32; 2]]| {
            let flat = values.as_flattened().to_vec();
            Tensor::from_vec(flat, (values.len(), 2), &Device::Cpu).expect("rows")
        };
        queue.push(&[&rows(&[[1.0, 2.0], [3.0, 4.0]])], &[Some(5), None]).expect("room");
        let before = queue.held().expect("two");
        queue.push(&[&rows(&[[5.0, 6.0], [7.0, 8.0]])], &[Some(0), Some(1)]).expect("room");
        let after = queue.held().expect("three");
        assert_eq!(before.people, [Some(5), None]);
        assert_eq!(before.rows[0].to_vec2::<f32>().expect("values"), [[1.0, 2.0], [3.0, 4.0]]);
        assert_eq!(after.people, [Some(0), Some(1), Some(5)]);
        assert_eq!(after.rows[0].to_vec2::<f32>().expect("values"), [[5.0, 6.0], [7.0, 8.0], [1.0, 2.0]]);
        let many = rows(&[[0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [0.0, 4.0]]);
        queue.push(&[&many], &[None; 4]).expect("the first three");
        assert_eq!(queue.held().expect("three").rows[0].to_vec2::<f32>().expect("values")[2], [0.0, 3.0]);
    }
}
