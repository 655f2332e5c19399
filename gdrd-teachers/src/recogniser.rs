//! What recognisers of every architecture share: a network that embeds, and the class weights that it was trained with.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use candle_core::{DType, Device, Tensor};
use gdrd_core::context::BuildContext;
use gdrd_core::data::HIGH;
use gdrd_core::error::{Context, Error, Result};
use gdrd_core::nn::kernels::WeightPrecision;
use gdrd_core::nn::recogniser::Trunk;
use gdrd_core::nn::weights::{check_finite, listed};
use gdrd_core::nn::{Inference, Map, Mode, Plan, l2_normalise};
use gdrd_core::recipe::RecipePath;
use gdrd_core::teacher::{Output, Preprocessing, Shown, Teacher, TeacherCard, TeacherWeights, cannot_offer};

use crate::weights::{self, HEADS};

/// A frozen network that embeds faces.
pub(crate) trait Network: Send + Sync {
    /// Height and width of its input, in pixels.
    const INPUT_SIZE: usize;

    /// Width of the embedding.
    fn width(&self) -> usize;

    /// The layers up to the last feature map; before the first are preprocessed faces.
    fn trunk(&self) -> &Trunk;

    /// The embedding `[batch, width]`, not normalised, of the last feature map.
    fn head(&self, map: &Tensor) -> Result<Tensor>;

    /// The head as part of the network's inference form.
    fn plan_head(&self, plan: &mut Plan, map: Map) -> Result<Map>;
}

/// The name of the map after the block at `at`.
fn map_name(at: usize) -> String {
    format!("blocks.{at}")
}

/// Another name of the last map: that which students give to what their backbone ends in.
const LAST_MAP: &str = "backbone";

/// What recipes say of a recogniser, beside its architecture.
pub(crate) struct Options<'a> {
    pub(crate) weights: &'a RecipePath,
    pub(crate) key: Option<&'a str>,
    pub(crate) class_weights: Option<&'a RecipePath>,
    pub(crate) logit_scale: f64,
    pub(crate) preprocessing: Option<Preprocessing>,
}

/// Factor of the cosines in insightface's, CVLface's and AdaFace's training.
pub(crate) fn default_logit_scale() -> f64 {
    64.0
}

/// A network and perhaps its margin head as a teacher.
pub(crate) struct Recogniser<N> {
    network: N,
    /// The network's, by the names in its file.
    tensors: BTreeMap<String, Tensor>,
    card: TeacherCard,
    /// `[classes, width]`, rows of unit length.
    classes: Option<Tensor>,
    scale: f64,
    /// What computes embeddings alone on the CPU, where the network has such a form; made when it is used for the first time.
    fast: OnceLock<Option<Inference>>,
}

impl<N: Network + 'static> Recogniser<N> {
    /// Reads the weight file; `read` makes the network of the tensors that are no margin head's and says how its kind of
    /// weights wants to be fed.
    pub(crate) fn open(
        options: &Options,
        cx: &BuildContext,
        read: impl FnOnce(BTreeMap<String, Tensor>) -> Result<(N, Preprocessing)>,
    ) -> Result<Box<dyn Teacher>> {
        let place = || format!("`{}`", options.weights);
        let mut tensors = weights::read(&cx.file(options.weights)?.path, options.key, &[], |_| true)?;
        let mut classes = take_class_weights(&mut tensors).at(place)?;
        let (network, usual) = read(tensors.clone()).at(place)?;
        let mut classes_file = options.weights;
        if let Some(path) = options.class_weights {
            (classes, classes_file) = (Some(read_class_weights(&cx.file(path)?.path)?), path);
        }
        let classes = classes.map(|classes| unit_rows(&classes, network.width(), cx.device())).transpose();
        let classes = classes.at(|| format!("`{classes_file}`"))?;
        let preprocessing = options.preprocessing.unwrap_or(usual);
        let views = vec![HIGH.into()];
        let card = TeacherCard { input_size: Some(N::INPUT_SIZE), preprocessing, views, default_map: None };
        Ok(Box::new(Self { network, tensors, card, classes, scale: options.logit_scale, fast: OnceLock::new() }))
    }

    /// The embeddings of preprocessed faces where no map is asked for, on the CPU, in the form that is fastest.
    fn embeddings(&self, x: &Tensor) -> Result<Option<Tensor>> {
        if !x.device().is_cpu() {
            return Ok(None);
        }
        if self.fast.get().is_none() {
            let (mut plan, faces) = Plan::new([3, N::INPUT_SIZE, N::INPUT_SIZE]);
            let trunk = self.network.trunk();
            let map = trunk.plan(0..trunk.len(), &mut plan, faces)?;
            let made = match map {
                Some(map) => {
                    let embedding = self.network.plan_head(&mut plan, map)?;
                    let mut network = plan.finish(embedding);
                    network.hold(WeightPrecision::Float32)?;
                    Some(network)
                }
                None => None,
            };
            self.fast.get_or_init(|| made);
        }
        let Some(Some(network)) = self.fast.get() else { return Ok(None) };
        let (count, values) = (x.dim(0)?, x.flatten_all()?.to_vec1::<f32>()?);
        let fill = |input: &mut [f32]| {
            input.copy_from_slice(&values);
            Ok(())
        };
        let embeddings = network.run(count, fill, <[f32]>::to_vec)?;
        Ok(Some(Tensor::from_vec(embeddings, (count, self.network.width()), &Device::Cpu)?))
    }

    /// The place of the block after which the map of this name lies.
    fn place(&self, output: &Output) -> Option<usize> {
        let Output::Map(name) = output else { return None };
        let blocks = self.network.trunk().len();
        if name == LAST_MAP { blocks.checked_sub(1) } else { (0..blocks).find(|&at| map_name(at) == *name) }
    }

    fn classes(&self, output: &Output) -> Result<&Tensor> {
        let last = map_name(self.network.trunk().len().saturating_sub(1));
        let maps = format!("`map blocks.0` to `map {last}`, which is `map {LAST_MAP}` too");
        let offers = match self.classes {
            Some(_) => format!("`embedding`, `logits`, {maps}"),
            None => {
                format!("`embedding`, {maps}; for `logits`, `class_weights` must name the margin head's class weights")
            }
        };
        self.classes.as_ref().filter(|_| *output == Output::Logits).ok_or_else(|| cannot_offer(output, &offers))
    }
}

impl<N: Network + 'static> Teacher for Recogniser<N> {
    fn card(&self) -> &TeacherCard {
        &self.card
    }

    fn shape(&self, output: &Output, _: usize) -> Result<Vec<usize>> {
        match (output, self.place(output)) {
            (Output::Embedding, _) => Ok(vec![self.network.width()]),
            (_, Some(at)) => Ok(self.network.trunk().output(at + 1, N::INPUT_SIZE).to_vec()),
            (other, None) => Ok(vec![self.classes(other)?.dim(0)?]),
        }
    }

    fn weights(&self) -> Result<TeacherWeights> {
        let preprocessing = Some(self.card.preprocessing);
        Ok(TeacherWeights { tensors: self.tensors.clone(), preprocessing })
    }

    fn features(&self, shown: &Shown, outputs: &[Output]) -> Result<Vec<Tensor>> {
        let places: Vec<Option<usize>> = outputs.iter().map(|output| self.place(output)).collect();
        let embeds = places.contains(&None);
        let last =
            if embeds { self.network.trunk().len() } else { places.iter().flatten().max().map_or(0, |at| at + 1) };
        let mut x = self.card.preprocessing.apply(shown.faces())?;
        if x.dims()[1..] != [3, N::INPUT_SIZE, N::INPUT_SIZE] {
            let (size, found) = (N::INPUT_SIZE, x.dims());
            return Err(Error::component(format!("expected faces [batch, 3, {size}, {size}], found {found:?}")));
        }
        let mut maps: BTreeMap<usize, Tensor> = BTreeMap::new();
        let fast = if places.iter().all(Option::is_none) { self.embeddings(&x)? } else { None };
        for at in 0..if fast.is_some() { 0 } else { last } {
            x = self.network.trunk().forward(at..at + 1, &x, Mode::Evaluate)?;
            if places.contains(&Some(at)) {
                maps.insert(at, x.detach());
            }
        }
        let embedding = match fast {
            None if embeds => Some(self.network.head(&x)?.detach()),
            fast => fast,
        };
        let offer = |output: &Output| match (output, &embedding) {
            (Output::Embedding, Some(embedding)) => Ok(embedding.clone()),
            (Output::Map(_), _) if self.place(output).is_some() => {
                let map = self.place(output).and_then(|at| maps.get(&at)).cloned();
                map.ok_or_else(|| Error::component("a map was asked for and not kept"))
            }
            (other, None) => Err(cannot_offer(other, "maps")),
            (other, Some(embedding)) => {
                let cosines = l2_normalise(embedding)?.matmul(&self.classes(other)?.t()?)?;
                Ok((cosines * self.scale)?.detach())
            }
        };
        outputs.iter().map(offer).collect()
    }

    fn maps(&self) -> Vec<String> {
        (0..self.network.trunk().len()).map(map_name).collect()
    }
}

/// Takes every margin head out of the tensors of a file, and returns its class weights, `[classes, width]`: its `weight`, or
/// AdaFace's `kernel` `[width, classes]`. Whatever else a head keeps (statistics of norms, momentum) is of no use here.
fn take_class_weights(tensors: &mut BTreeMap<String, Tensor>) -> Result<Option<Tensor>> {
    let mut found = None;
    for head in HEADS {
        let kernel = tensors.remove(&format!("{head}.kernel")).map(|kernel| kernel.t()).transpose()?;
        let weight = tensors.remove(&format!("{head}.weight")).or(kernel);
        if found.is_some() && weight.is_some() {
            return Err(Error::weights(format!("class weights of `{head}`, and of another margin head")));
        }
        found = found.or(weight);
        tensors.retain(|name, _| name.strip_prefix(head).is_none_or(|rest| !rest.starts_with('.')));
    }
    Ok(found)
}

/// The class weights of a file that holds nothing else; they may also be called `weight` there.
fn read_class_weights(path: &Path) -> Result<Tensor> {
    let mut tensors = weights::read(path, None, &[], |_| true)?;
    let found = take_class_weights(&mut tensors).at(|| format!("`{}`", path.display()))?;
    found.or_else(|| tensors.remove("weight")).ok_or_else(|| {
        Error::weights(format!(
            "`{}`: expected class weights, `weight` or one of {HEADS:?} with `.weight` or `.kernel`; {}",
            path.display(),
            listed(&tensors)
        ))
    })
}

/// The class weights with rows of unit length.
fn unit_rows(classes: &Tensor, width: usize, device: &Device) -> Result<Tensor> {
    check_finite("class weights", classes)?;
    match classes.dims() {
        [rows, found] if *found == width && *rows > 0 => {
            l2_normalise(&classes.to_dtype(DType::F32)?.to_device(device)?)
        }
        found => Err(Error::weights(format!("expected class weights [classes, {width}], found {found:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use gdrd_core::face::FaceBatch;
    use gdrd_core::nn::Weights;
    use gdrd_core::nn::mobilefacenet::{Layout, MobileFaceNet};
    use gdrd_core::nn::weights::Draw;

    use super::*;

    fn tensors(names: &[(&str, (usize, usize))]) -> BTreeMap<String, Tensor> {
        let ones = |shape| Tensor::ones(shape, DType::F32, &Device::Cpu).expect("ones");
        names.iter().map(|(name, shape)| (name.to_string(), ones(*shape))).collect()
    }

    #[test]
    fn class_weights_are_found_under_every_name_and_turned() {
        for (name, shape) in [
            ("state_dict_softmax_fc.weight", (5, 3)),
            ("partial_fc.weight", (5, 3)),
            ("classifier.weight", (5, 3)),
            ("head.kernel", (3, 5)),
        ] {
            let head = name.split('.').next().expect("a head");
            let state = format!("{head}.batch_mean");
            let mut all = tensors(&[(name, shape), (&state, (1, 1)), ("headless.weight", (2, 2))]);
            let found = take_class_weights(&mut all).expect("one head").expect("class weights");
            assert_eq!(found.dims(), [5, 3], "{name}");
            assert_eq!(all.keys().collect::<Vec<_>>(), ["headless.weight"]);
        }
        assert!(take_class_weights(&mut tensors(&[("fc.weight", (5, 3))])).expect("no head").is_none());
        let mut two = tensors(&[("head.weight", (5, 3)), ("classifier.weight", (5, 3))]);
        assert!(take_class_weights(&mut two).expect_err("two heads").to_string().contains("`head`"));
    }

    #[test]
    fn maps_are_those_before_the_embedding() {
        let draw: Rc<Draw> = Rc::new(|name, count, _| {
            let least = if name.ends_with("running_var") { 0.5 } else { -0.1 };
            (0..count).map(|at| ((name.len() * 31 + at * 7919) % 201) as f32 / 900.0 + least).collect()
        });
        let made = Weights::create(&Device::Cpu, draw, |weights| MobileFaceNet::new(Layout::Foamliu, weights));
        let (network, _) = made.expect("a network");
        let views = vec![HIGH.into()];
        let card =
            TeacherCard { input_size: Some(112), preprocessing: Preprocessing::none(), views, default_map: None };
        let teacher =
            Recogniser { network, tensors: BTreeMap::new(), card, classes: None, scale: 64.0, fast: OnceLock::new() };
        let names = teacher.maps();
        assert_eq!((names.len(), names[0].as_str()), (17, "blocks.0"));
        let map = |name: &str| Output::Map(name.to_string());
        assert_eq!(teacher.shape(&map("blocks.16"), 112).expect("the last map"), [512, 7, 7]);
        let faces = Tensor::rand(0f32, 1.0, (1, 3, 112, 112), &Device::Cpu).expect("a face");
        let shown = Shown::from(FaceBatch::from_tensor(faces).expect("a batch"));
        let outputs = [map("blocks.16"), Output::Embedding, map("blocks.0"), map("backbone")];
        let found = teacher.features(&shown, &outputs).expect("features");
        assert_eq!(teacher.shape(&map("backbone"), 112).expect("the last map"), [512, 7, 7]);
        let [last, named] = [&found[0], &found[3]].map(|map| map.flatten_all().and_then(|map| map.to_vec1::<f32>()));
        assert_eq!(last.expect("values"), named.expect("values"));
        assert_eq!((found[0].dims(), found[2].dims()), (&[1, 512, 7, 7][..], &[1, 64, 56, 56][..]));
        let embedding = teacher.network.head(&found[0]).and_then(|e| Ok(e.to_vec2::<f32>()?)).expect("an embedding");
        assert_eq!(embedding, found[1].to_vec2::<f32>().expect("an embedding"));
        let text = teacher.shape(&map("blocks.17"), 112).expect_err("no such block").to_string();
        assert!(text.contains("cannot offer `map blocks.17`") && text.contains("to `map blocks.16`"), "{text}");
    }

    #[test]
    fn class_weights_of_another_width_are_refused() {
        let classes = Tensor::ones((5, 3), DType::F32, &Device::Cpu).expect("ones");
        let text = unit_rows(&classes, 4, &Device::Cpu).expect_err("another width").to_string();
        assert!(text.contains("expected class weights [classes, 4], found [5, 3]"), "{text}");
    }
}
