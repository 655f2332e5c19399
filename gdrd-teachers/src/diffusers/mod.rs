//! Generative teachers in the format of the diffusers library: a weight file, and `config.json` beside it.
//!
//! The networks are made of candle-transformers' blocks, which know diffusers' names. Only tensors of the encoder are read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::Tensor;
use gdrd_core::context::BuildContext;
use gdrd_core::data::LOW;
use gdrd_core::error::{Context, Error, Problem, Result};
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::{Weights, resize_bicubic};
use gdrd_core::plugin::bounds::out_of_bounds_json;
use gdrd_core::recipe::RecipePath;
use gdrd_core::teacher::{Alignment, Output, Preprocessing, Shown, Teacher, TeacherCard, cannot_offer};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

mod autoencoder_kl;
mod blocks;
mod encoder;
mod unet2d;

pub use autoencoder_kl::{AutoencoderKl, AutoencoderNetwork};
pub use unet2d::{DiffusersUnet2d, DownBlock, Unet2dNetwork};

use encoder::Encoder;

use crate::weights;

/// How a class of diffusers writes its `config.json`.
struct Class {
    /// Its `_class_name`.
    name: &'static str,
    /// Keys that may have this value alone, as JSON; in a list, every value must be this one.
    fixed: &'static [(&'static str, &'static str)],
    /// Values, as JSON, of keys that are left out, where a recipe means another.
    absent: &'static [(&'static str, &'static str)],
    /// Keys of the decoder and of training.
    idle: &'static [&'static str],
}

impl Class {
    /// The network of `config`, or of `config.json` beside `weights`, on this machine or on the Hub; `faults` finds what does not
    /// fit in it.
    ///
    /// # Errors
    /// If there is no such file, or it asks for what gdrd does not have: every such key is named.
    fn read<T: DeserializeOwned + JsonSchema>(
        &self,
        weights: &RecipePath,
        config: Option<&RecipePath>,
        cx: &BuildContext,
        faults: impl Fn(&T) -> Vec<String>,
    ) -> Result<T> {
        let path = config.cloned().unwrap_or_else(|| weights.beside("config.json"));
        let file = cx.file(&path).map_err(|e| match config {
            Some(_) => e,
            None => e.at("no `config` in the recipe and none beside the weights"),
        })?;
        let text = std::fs::read_to_string(&file.path).map_err(|e| Error::io(&file.path, e))?;
        self.parse(&text, faults).at(|| format!("`{path}`"))
    }

    fn parse<T: DeserializeOwned + JsonSchema>(&self, text: &str, faults: impl Fn(&T) -> Vec<String>) -> Result<T> {
        let mut keys: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| Error::recipe(format!("not a JSON object: {e}")))?;
        let mut wrong = Vec::new();
        let class = format!("\"{}\"", self.name);
        for (key, expected) in [("_class_name", class.as_str())].into_iter().chain(self.fixed.iter().copied()) {
            match keys.remove(key) {
                Some(found) if !means(&found, expected) => {
                    wrong.push(format!("`{key}`: expected {expected}, found {found}"));
                }
                _ => {}
            }
        }
        keys.retain(|key, _| !key.starts_with('_') && !self.idle.contains(&key.as_str()));
        for (key, value) in self.absent {
            keys.entry(*key).or_insert(serde_json::from_str(value).unwrap_or_default());
        }
        let keys = Value::Object(keys);
        let outside = out_of_bounds_json(&schemars::schema_for!(T), &keys);
        wrong.extend(outside.iter().map(|number| format!("`{}`: {}", number.key(), number.message)));
        match serde_json::from_value(keys) {
            Err(error) => wrong.push(error.to_string()),
            Ok(network) => {
                wrong.extend(faults(&network));
                if wrong.is_empty() {
                    return Ok(network);
                }
            }
        }
        Err(Error::recipe(wrong.join("; ")))
    }
}

/// Whether `found`, or everything in it if it is a list, is `expected`; 1.0 is 1.
fn means(found: &Value, expected: &str) -> bool {
    match found {
        Value::Array(all) => all.iter().all(|found| means(found, expected)),
        Value::Number(number) => number.as_f64() == expected.parse().ok(),
        found => serde_json::from_str::<Value>(expected).is_ok_and(|expected| *found == expected),
    }
}

/// What does not fit in the options that both networks have.
fn faults(channels: &[usize], groups: usize, head: Option<usize>) -> Vec<String> {
    let mut faults = Vec::new();
    if channels.is_empty() {
        faults.push("`block_out_channels`: expected at least one level, found none".into());
    }
    for (key, divisor) in [("norm_num_groups", Some(groups)), ("attention_head_dim", head)] {
        let misfit = |divisor: usize| channels.iter().find(|channels| !channels.is_multiple_of(divisor));
        if let Some((divisor, channels)) = divisor.and_then(|divisor| Some((divisor, misfit(divisor)?))) {
            faults.push(format!("`{key}` {divisor} does not divide {channels} channels"));
        }
    }
    faults
}

/// What the options of both kinds share.
struct Source<'a> {
    /// The recipe's path, and where it leads.
    weights: (&'a RecipePath, PathBuf),
    /// The key of the state dict that is meant.
    key: Option<&'a str>,
    input_size: Option<usize>,
    /// The network's own size.
    sample_size: Option<usize>,
    tap: &'a str,
}

impl Source<'_> {
    fn described_once(described_twice: bool) -> Option<Problem> {
        Problem::unless(!described_twice, "config", || "expected `config` or `network`, found both".into())
    }

    /// The teacher, from the tensors of the weight file that `wanted` names; some names begin with a word in `own`.
    fn build(
        self,
        cx: &BuildContext,
        own: &[&str],
        wanted: impl Fn(&str) -> bool,
        new: impl FnOnce(&Weights) -> Result<(Encoder, Option<Tensor>)>,
    ) -> Result<Box<dyn Teacher>> {
        let input_size = self.input_size.or(self.sample_size).ok_or_else(|| {
            Error::recipe("the network has no `sample_size`; say with `input_size` what faces are brought to")
        })?;
        let tensors = weights::read(&self.weights.1, self.key, own, wanted)?
            .into_iter()
            .map(today)
            .collect::<Result<BTreeMap<_, _>>>()?;
        let place = || format!("`{}`", self.weights.0);
        let (encoder, time) = Weights::read(tensors, cx.device(), |_| false, new).at(place)?;
        encoder.tap_shape(self.tap, input_size).at(|| "`tap`".into())?;
        let card = TeacherCard {
            input_size: None,
            preprocessing: Preprocessing { alignment: Alignment::Data, ..Preprocessing::default() },
            views: vec![LOW.into()],
            default_map: Some(self.tap.to_string()),
        };
        Ok(Box::new(FrozenEncoder { encoder, time, card, input_size }))
    }
}

/// A tensor as diffusers names and shapes it today: attention once had other names, and 1x1 convolutions.
fn today((name, tensor): (String, Tensor)) -> Result<(String, Tensor)> {
    let Some((block, rest)) = name.split_once(".attentions.") else { return Ok((name, tensor)) };
    let names = [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];
    let rest = names.iter().fold(rest.to_string(), |rest, (old, new)| rest.replace(old, new));
    let tensor = match tensor.dims() {
        &[outputs, inputs, 1, 1] => tensor.reshape((outputs, inputs))?,
        _ => tensor,
    };
    Ok((format!("{block}.attentions.{rest}"), tensor))
}

struct FrozenEncoder {
    encoder: Encoder,
    time: Option<Tensor>,
    card: TeacherCard,
    input_size: usize,
}

fn tap(output: &Output) -> Result<&str> {
    match output {
        Output::Map(name) => Ok(name),
        other => Err(cannot_offer(other, "feature maps such as `down_blocks.0` and `mid_block`")),
    }
}

impl Teacher for FrozenEncoder {
    fn card(&self) -> &TeacherCard {
        &self.card
    }

    fn shape(&self, output: &Output, _: usize) -> Result<Vec<usize>> {
        Ok(self.encoder.tap_shape(tap(output)?, self.input_size)?.to_vec())
    }

    fn features(&self, shown: &Shown, outputs: &[Output]) -> Result<Vec<Tensor>> {
        let taps = outputs.iter().map(tap).collect::<Result<Vec<_>>>()?;
        for tap in &taps {
            self.encoder.tap_shape(tap, self.input_size)?;
        }
        let faces = FaceBatch::from_tensor(resize_bicubic(shown.faces().tensor(), self.input_size)?)?;
        let x = self.card.preprocessing.apply(&faces)?;
        let maps = self.encoder.taps(&x, self.time.as_ref(), &taps)?;
        Ok(maps.into_iter().map(|map| map.detach()).collect())
    }

    fn maps(&self) -> Vec<String> {
        self.encoder.maps()
    }
}
