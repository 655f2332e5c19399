//! A recogniser in two parts: blocks of layers that end in the last feature map, and what makes the embedding of that.

use std::fmt::Debug;
use std::ops::Range;

use candle_core::Tensor;

use super::{Map, Mode, Plan};
use crate::error::Result;

/// Layers of a recogniser that end in a feature map.
pub trait Block: Debug + Send + Sync {
    /// The map of `x`, each `[batch, channels, h, w]`.
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor>;

    /// The layers as part of a network's inference form; none if they have no such form.
    fn plan(&self, plan: &mut Plan, x: Map) -> Result<Option<Map>>;

    /// Channels, height and width of the map that becomes of one with `dims`.
    fn output(&self, dims: [usize; 3]) -> [usize; 3];
}

/// What makes the embedding of the last feature map.
pub trait EmbeddingHead: Debug + Send + Sync {
    /// The embedding `[batch, width]`, not normalised, of `map` `[batch, channels, h, w]`.
    fn forward(&self, map: &Tensor, mode: Mode) -> Result<Tensor>;

    /// The same as part of a network's inference form.
    fn plan(&self, plan: &mut Plan, map: Map) -> Result<Map>;
}

/// A recogniser's layers from its input to its last feature map.
#[derive(Debug, Default)]
pub struct Trunk {
    blocks: Vec<(Vec<String>, Box<dyn Block>)>,
}

impl Trunk {
    /// Adds a block, whose tensors' names begin with these.
    pub fn push(&mut self, names: impl IntoIterator<Item = String>, block: impl Block + 'static) {
        self.blocks.push((names.into_iter().map(|name| format!("{name}.")).collect(), Box::new(block)));
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The map after some of the blocks, of the map before them.
    pub fn forward(&self, blocks: Range<usize>, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut x = x.clone();
        for (_, block) in &self.blocks[blocks] {
            x = block.forward(&x, mode)?;
        }
        Ok(x)
    }

    /// Some of the blocks as part of a network's inference form; none if one of them has no such form.
    pub fn plan(&self, blocks: Range<usize>, plan: &mut Plan, x: Map) -> Result<Option<Map>> {
        let mut x = x;
        for (_, block) in &self.blocks[blocks] {
            match block.plan(plan, x)? {
                Some(map) => x = map,
                None => return Ok(None),
            }
        }
        Ok(Some(x))
    }

    /// Channels, height and width of the map after the first `blocks` blocks, for faces of `size` pixels.
    pub fn output(&self, blocks: usize, size: usize) -> [usize; 3] {
        self.blocks[..blocks].iter().fold([3, size, size], |dims, (_, block)| block.output(dims))
    }

    /// The block that a tensor of this name belongs to.
    pub fn block_of(&self, tensor: &str) -> Option<usize> {
        self.blocks.iter().position(|(names, _)| names.iter().any(|name| tensor.starts_with(name.as_str())))
    }
}
