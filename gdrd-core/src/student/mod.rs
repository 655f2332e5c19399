//! What the trainer and the embedding API need of a student.

use candle_core::Tensor;

use crate::context::{BuildContext, Host, Record};
use crate::error::{Error, Problem, Result};
use crate::face::FaceBatch;
use crate::nn::{Inference, Mode, Preprocessing, Weights};

#[cfg(feature = "train")]
mod calibrate;
mod facts;
mod file;
mod thresholds;

#[cfg(feature = "train")]
pub use calibrate::{CalibrationOptions, calibrate};
pub use facts::{Beginning, QUALITY_FEATURES, QualityModel, Rounding, Source, StatedFigure, StudentFacts};
pub use file::{STUDENT_FORMAT, StudentFile, StudentHeader, student_digest};
pub use thresholds::{
    Calibration, Compared, Comparisons, FALSE_MATCH_RATES, FusedCalibration, LEAST_FALSE_MATCHES, SizeCalibration,
    Threshold,
};

/// The two parts of a student that stages train or freeze, S = {S_b, S_h} in the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "train", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// S_b: a face to a feature map.
    Backbone,
    /// S_h: a feature map to an embedding.
    Head,
}

/// The sizes of a student.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StudentCard {
    /// Height and width of its input, in pixels.
    pub input_size: usize,
    /// Channels, height and width of the backbone's feature map.
    pub map: [usize; 3],
    /// Values in an embedding; none for a network that only denoises.
    pub embedding: Option<usize>,
}

/// The fully connected layer at the end of a student's head, `embedding = x W^T + b`, by the names of its variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastLinear {
    /// The parameter `[outputs, inputs]`.
    pub weight: String,
    /// The parameter `[outputs]`.
    pub bias: String,
    /// Values that it is given for a face.
    pub inputs: usize,
    /// Values in an embedding.
    pub outputs: usize,
}

/// A network that is being trained or used. Input is `[batch, 3, size, size]` in `[0, 1]`.
///
/// Names of parameters begin with the part that they belong to, unless [`part`](Student::part) says otherwise.
///
/// ```
/// use candle_core::Tensor;
/// use gdrd_core::error::Result;
/// use gdrd_core::face::FaceBatch;
/// use gdrd_core::nn::Mode;
/// use gdrd_core::student::{Part, Student, StudentCard};
///
/// /// The mean colour of a face: nothing to train.
/// struct Mean(StudentCard);
///
/// impl Student for Mean {
///     fn card(&self) -> &StudentCard {
///         &self.0
///     }
///     fn backbone(&self, faces: &FaceBatch, _: Mode) -> Result<Tensor> {
///         Ok(faces.tensor().clone())
///     }
///     fn head(&self, map: &Tensor, _: Mode) -> Result<Tensor> {
///         Ok(map.mean((2, 3))?)
///     }
/// }
///
/// let mean = Mean(StudentCard { input_size: 16, map: [3, 16, 16], embedding: Some(3) });
/// assert_eq!((mean.part("head.weight"), mean.part("stem.weight")), (Part::Head, Part::Backbone));
/// assert!(mean.inference()?.is_none(), "a form for speed may be left out");
/// # Ok::<(), gdrd_core::error::Error>(())
/// ```
pub trait Student: Send + Sync {
    /// Its sizes.
    fn card(&self) -> &StudentCard;

    /// S_b: the feature map of `faces`, `[batch, channels, height, width]`.
    fn backbone(&self, faces: &FaceBatch, mode: Mode) -> Result<Tensor>;

    /// S_h: the embedding of a feature map, `[batch, width]`, not normalised.
    fn head(&self, map: &Tensor, mode: Mode) -> Result<Tensor>;

    /// The names of the feature maps on the way of a face, in their order: the backbone's own is among them, others may lie before it
    /// and in the head.
    fn maps(&self) -> Vec<String> {
        vec![BACKBONE.to_string()]
    }

    /// The feature maps of these names, `[batch, channels, height, width]`. Maps up to the backbone's are made in `mode`, those of
    /// the head as the network evaluates.
    ///
    /// # Errors
    /// If there is no map of a name.
    fn features(&self, faces: &FaceBatch, names: &[String], mode: Mode) -> Result<Vec<Tensor>> {
        let map = self.backbone(faces, mode)?;
        named(&[(BACKBONE.to_string(), map)], names)
    }

    /// The layer that the head ends with; none if it ends with something else than a fully connected layer with a bias. A stage
    /// that is solved in closed form sets its variables.
    fn last_linear(&self) -> Option<LastLinear> {
        None
    }

    /// What the last fully connected layer is given, `[batch, inputs]`, for a feature map of [`backbone`](Student::backbone).
    ///
    /// # Errors
    /// If the head ends with none ([`last_linear`](Student::last_linear)).
    fn before_last_linear(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        let _ = (map, mode);
        Err(Error::component("this student's head does not end with a fully connected layer with a bias"))
    }

    /// The whole way from faces to embeddings, not normalised, with the weights as they are now, in the form that is fastest on
    /// the CPU; none if the network has no such form.
    ///
    /// # Errors
    /// If a layer does not fit the input size.
    fn inference(&self) -> Result<Option<Inference>> {
        Ok(None)
    }

    /// The part that a parameter belongs to.
    fn part(&self, parameter: &str) -> Part {
        if parameter.starts_with("head.") { Part::Head } else { Part::Backbone }
    }

    /// What it does to its input, where that is an option `preprocessing` which a recipe may leave open; the student's file says
    /// it then.
    fn preprocessing(&self) -> Option<Preprocessing> {
        None
    }

    /// What it does to its input, whether or not that is an option: the student's file states it for people and other programs.
    /// None where it cannot be said this way.
    fn input(&self) -> Option<Preprocessing> {
        self.preprocessing()
    }

    /// Whether this tensor belongs to what the student has in the place of another network's head. When it starts from a teacher,
    /// such tensors of its own may be new, and such tensors of the teacher may be left out; all others must be the same on both
    /// sides.
    fn replaces(&self, tensor: &str) -> bool {
        self.part(tensor) == Part::Head
    }

    /// The noise in `noisy` `[batch, 3, size, size]` (values about `[-1, 1]`) at `timesteps` of 0 to 999, `[batch, 3, size, size]`; a
    /// network with a condition has its three channels behind those of `noisy`, `[batch, 6, size, size]`.
    ///
    /// # Errors
    /// If the network is not a denoiser.
    fn denoise(&self, noisy: &Tensor, timesteps: &[f32]) -> Result<Tensor> {
        let _ = (noisy, timesteps);
        Err(Error::component("this student cannot denoise; a denoising stage needs kind `diffusion-unet`"))
    }
}

/// The name of the backbone's own map.
pub const BACKBONE: &str = "backbone";

/// The maps of these names among all that there are.
///
/// # Errors
/// If there is none of a name; the error says which there are.
pub fn named(maps: &[(String, Tensor)], names: &[String]) -> Result<Vec<Tensor>> {
    let find = |name: &String| {
        let found = maps.iter().find(|(of, _)| of == name).map(|(_, map)| map.clone());
        found.ok_or_else(|| {
            let known: Vec<&String> = maps.iter().map(|(name, _)| name).collect();
            Error::component(format!("the student has no map `{name}`; there are {known:?}"))
        })
    };
    names.iter().map(find).collect()
}

/// What a recipe says of a student, and what its file keeps.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use gdrd_core::context::{Bare, BuildContext};
/// use gdrd_core::error::Result;
/// use gdrd_core::face::{Face, FaceBatch};
/// use gdrd_core::nn::{Linear, Mode, Weights};
/// use gdrd_core::student::{Student, StudentCard, StudentConfig, build};
///
/// /// One fully connected layer.
/// #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct Flat {
///     /// Values in an embedding.
///     embedding: usize,
/// }
///
/// impl StudentConfig for Flat {
///     fn build(&self, cx: &BuildContext) -> Result<Box<dyn Student>> {
///         let size = cx.input_size()?;
///         let layer = Linear::new(3 * size * size, self.embedding, true, &cx.weights()?.pp("head"))?;
///         let card = StudentCard { input_size: size, map: [3, size, size], embedding: Some(self.embedding) };
///         Ok(Box::new(Network { card, layer }))
///     }
/// }
///
/// struct Network {
///     card: StudentCard,
///     layer: Linear,
/// }
///
/// impl Student for Network {
///     fn card(&self) -> &StudentCard {
///         &self.card
///     }
///     fn backbone(&self, faces: &FaceBatch, _: Mode) -> Result<Tensor> {
///         Ok(faces.tensor().clone())
///     }
///     fn head(&self, map: &Tensor, _: Mode) -> Result<Tensor> {
///         self.layer.forward(&map.flatten_from(1)?)
///     }
/// }
///
/// let draw = std::rc::Rc::new(|name: &str, count, init| gdrd_core::seed::Seed(7).draw(name, count, init));
/// let host = Bare(Device::Cpu);
/// let flat = |weights: &Weights| build(&Flat { embedding: 5 }, 4, weights, &host);
/// let (student, variables) = Weights::create(&Device::Cpu, draw, flat)?;
/// let face = FaceBatch::from_faces(&[Face::new(4, 4, vec![9; 48])?], &Device::Cpu)?;
/// let map = student.backbone(&face, Mode::Evaluate)?;
/// assert_eq!(student.head(&map, Mode::Evaluate)?.dims(), [1, 5]);
/// assert!(variables.tensors().contains_key("head.weight"));
/// # Ok::<(), gdrd_core::error::Error>(())
/// ```
pub trait StudentConfig: Send + Sync {
    /// What is wrong with the options.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// The network for faces of [`cx.input_size()`](BuildContext::input_size) pixels, with its parameters in
    /// [`cx.weights()`](BuildContext::weights). It is built anew to be trained, and from the tensors of its file to embed; a
    /// program that only embeds has no other file.
    ///
    /// # Errors
    /// If the options do not fit the input size, or the weights do not fit.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Student>>;
}

/// The kinds of students that a program can open.
///
/// A program that trains has a [`Registry`](crate::registry::Registry); one that only embeds names its kinds itself:
///
/// ```
/// use gdrd_core::error::{Error, Result};
/// use gdrd_core::student::{StudentConfig, StudentKinds};
///
/// /// A program that opens no student.
/// struct Nothing;
///
/// impl StudentKinds for Nothing {
///     fn config(&self, kind: &str, _: &serde_json::Value) -> Result<Box<dyn StudentConfig>> {
///         Err(Error::component(format!("students of kind `{kind}` are not known here")))
///     }
/// }
///
/// assert!(Nothing.config("mixer", &serde_json::json!({})).is_err());
/// ```
pub trait StudentKinds: Send + Sync {
    /// The config of a kind with these options.
    ///
    /// # Errors
    /// If the program does not have the kind, or the options are not its.
    fn config(&self, kind: &str, options: &serde_json::Value) -> Result<Box<dyn StudentConfig>>;
}

/// What only a student's build can know.
pub(crate) struct Input {
    /// Height and width of the faces, in pixels.
    pub(crate) size: usize,
    /// What the teacher that the student starts from expects of its input.
    pub(crate) preprocessing: Option<Preprocessing>,
}

impl BuildContext<'_> {
    /// Height and width of the faces that the student sees, in pixels.
    ///
    /// # Errors
    /// If no student is built.
    pub fn input_size(&self) -> Result<usize> {
        let input: Option<&Input> = self.facts();
        input.map(|input| input.size).ok_or_else(|| Error::component("only students have an input size"))
    }

    /// What the teacher that the student starts from expects of its input; none if it starts from no teacher.
    pub fn initial_preprocessing(&self) -> Option<Preprocessing> {
        self.facts().and_then(|input: &Input| input.preprocessing)
    }
}

/// Builds a student for faces of `input_size` pixels.
///
/// # Errors
/// As [`StudentConfig::build`].
pub fn build(
    config: &dyn StudentConfig,
    input_size: usize,
    weights: &Weights,
    host: &dyn Host,
) -> Result<Box<dyn Student>> {
    build_recorded(config, &Input { size: input_size, preprocessing: None }, weights, host).map(|(student, _)| student)
}

/// The same, with what the build has read.
pub(crate) fn build_recorded(
    config: &dyn StudentConfig,
    input: &Input,
    weights: &Weights,
    host: &dyn Host,
) -> Result<(Box<dyn Student>, Record)> {
    let cx = BuildContext::new(host).with_weights(weights).with_facts(input);
    Ok((config.build(&cx)?, cx.record()))
}
