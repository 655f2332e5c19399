//! A teacher whose embedding is another's, made a better target.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::whitening::Whitening;
use super::{FeatureStore, Output, Shown, Source, Teacher, TeacherCard, TeacherConfig, embedding_width};
use crate::context::BuildContext;
use crate::data::{Augment, Dataset, Views};
use crate::error::{Context, Error, Problem, Result};
use crate::nn::l2_normalise;
use crate::plugin::{DatasetName, Kind, TeacherName};

/// The embedding of another teacher, changed in this order: summed with that of the mirror image, whitened, drawn towards the
/// person's mean. Rows have unit length. Any loss can use it; maps and logits are the other teacher's own.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transformed {
    /// The other teacher's name in the recipe.
    pub teacher: TeacherName,
    /// Whether the embeddings of the face and of its mirror image, each of unit length, are summed.
    #[serde(default)]
    pub mirror: bool,
    /// The power of the covariance C of the embeddings over `data`: they become (t - mean) C^-whiten. 0 removes the mean alone,
    /// 0.25 is mild, 0.5 gives all directions the same variance. Nothing is done when left out.
    #[serde(default)]
    #[schemars(range(min = 0, max = 0.5))]
    pub whiten: Option<f64>,
    /// Share of the person's mean direction in the target, 0 to 1: t' = (1 - identity) t + identity centre. Faces whose person
    /// `data` does not know stay as they are.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1))]
    pub identity: f64,
    /// The dataset that mean, covariance and people are of; needed by `whiten` and `identity`.
    #[serde(default)]
    pub data: Option<DatasetName>,
}

impl Kind for Transformed {
    const NAME: &'static str = "transformed";
    const PURPOSE: &'static str = "another teacher's embedding: mirror sum, whitening, identity centres";
}

impl TeacherConfig for Transformed {
    fn check(&self) -> Vec<Problem> {
        let needs_data = self.whiten.is_some() || self.identity > 0.0;
        let message = || "expected the name of a dataset: `whiten` and `identity` need one".into();
        Problem::unless(self.data.is_some() || !needs_data, "data", message).into_iter().collect()
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Teacher>> {
        let inner = cx.teacher(&self.teacher)?;
        let mut made = Network { inner, mirror: self.mirror, whitening: None, centres: None };
        let width = embedding_width(&*made.inner)?;
        let Some(data) = self.data.as_ref().filter(|_| self.whiten.is_some() || self.identity > 0.0) else {
            return Ok(Box::new(made));
        };
        let views = cx.views(data)?;
        let mut rows = self.rows(&*made.inner, &views, width, cx)?;
        if let Some(power) = self.whiten {
            made.whitening = Some(Whitening::of(&rows, width, power, cx.device())?);
        }
        if self.identity > 0.0 {
            if let Some(whitening) = &made.whitening {
                let x = Tensor::from_vec(rows, (views.dataset().len(), width), cx.device())?;
                rows = l2_normalise(&whitening.apply(&x)?)?.flatten_all()?.to_vec1()?;
            }
            made.centres = Some(Centres::new(&rows, width, views.dataset(), self.identity)?);
        }
        Ok(Box::new(made))
    }
}

impl Transformed {
    /// The other teacher's embeddings of the whole dataset, unit-length rows, summed with the mirror image's if so; they are
    /// stored.
    fn rows(&self, inner: &dyn Teacher, views: &Views, width: usize, cx: &BuildContext) -> Result<Vec<f32>> {
        for view in &inner.card().views {
            if views.is_random(view)? {
                return Err(Error::component(format!(
                    "teacher `{}` sees the random view `{view}`; `whiten` and `identity` need a view that is not",
                    self.teacher
                )));
            }
        }
        let content = cx.record().parts.get(&format!("teacher {}", self.teacher)).cloned();
        let content = content.ok_or_else(|| Error::component("the other teacher's content was not recorded"))?;
        let none = Augment::none();
        let source = Source { teacher: inner, content, views, augment: &none, device: cx.device() };
        let variants = Augment { flip: self.mirror, ..Augment::none() }.variants();
        let what = format!("features of teacher `{}`", self.teacher);
        let mut report = |_, done, total| cx.report(&what, done, total);
        let mut warn = |message: String| cx.report(&message, 0, 1);
        let store: &FeatureStore = cx.service()?;
        let found = store.features(&source, &variants, &[Output::Embedding], &mut report, &mut warn)?;
        let mut rows = vec![0f32; views.dataset().len() * width];
        let mut one = vec![0f32; width];
        for (index, row) in rows.chunks_exact_mut(width).enumerate() {
            for side in found.iter().flat_map(BTreeMap::values) {
                side.copy(index, &mut one);
                to_unit_length(&mut one);
                row.iter_mut().zip(&one).for_each(|(sum, value)| *sum += value);
            }
            to_unit_length(row);
        }
        Ok(rows)
    }
}

fn to_unit_length(row: &mut [f32]) {
    let length = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt().max(1e-12);
    row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
}

/// The mean directions of people, and whose face a sample is.
struct Centres {
    people: BTreeMap<String, usize>,
    /// Unit-length rows.
    directions: Vec<Vec<f32>>,
    share: f64,
}

impl Centres {
    /// From unit-length rows, one for each face.
    fn new(rows: &[f32], width: usize, dataset: &dyn Dataset, share: f64) -> Result<Self> {
        let mut directions = vec![vec![0f32; width]; dataset.people().len()];
        let mut people = BTreeMap::new();
        for (index, row) in rows.chunks_exact(width).enumerate() {
            let Some(person) = dataset.person(index) else { continue };
            directions[person].iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            let key = dataset.key(index);
            if people.insert(key.clone(), person).is_some_and(|other| other != person) {
                return Err(Error::data(format!(
                    "`identity`: two people have a face called `{key}`; expected keys that tell them apart"
                )));
            }
        }
        directions.iter_mut().for_each(|direction| to_unit_length(direction));
        Ok(Self { people, directions, share })
    }

    /// Unit-length rows `x`, `[batch, width]`, of the samples with these keys, drawn towards their people's means.
    fn draw(&self, x: &Tensor, keys: &[String]) -> Result<Tensor> {
        if keys.iter().all(|key| !self.people.contains_key(key)) {
            return Ok(x.clone());
        }
        let mut rows = x.to_vec2::<f32>()?;
        let (own, centre) = (1.0 - self.share, self.share);
        for (row, key) in rows.iter_mut().zip(keys) {
            let Some(person) = self.people.get(key) else { continue };
            for (value, mean) in row.iter_mut().zip(&self.directions[*person]) {
                *value = (own * f64::from(*value) + centre * f64::from(*mean)) as f32;
            }
            to_unit_length(row);
        }
        Ok(Tensor::new(rows, &Device::Cpu)?.to_device(x.device())?)
    }
}

struct Network {
    inner: Arc<dyn Teacher>,
    mirror: bool,
    whitening: Option<Whitening>,
    centres: Option<Centres>,
}

impl Network {
    fn embedding(&self, shown: &Shown, plain: &Tensor) -> Result<Tensor> {
        let mut x = l2_normalise(plain)?;
        if self.mirror {
            let mirrored = self.inner.features(&shown.mirrored()?, &[Output::Embedding])?;
            x = l2_normalise(&(x + l2_normalise(&mirrored[0])?)?)?;
        }
        if let Some(whitening) = &self.whitening {
            x = l2_normalise(&whitening.apply(&x)?)?;
        }
        match &self.centres {
            Some(centres) => centres.draw(&x, shown.keys()),
            None => Ok(x),
        }
    }
}

impl Teacher for Network {
    fn card(&self) -> &TeacherCard {
        self.inner.card()
    }

    fn shape(&self, output: &Output, input: usize) -> Result<Vec<usize>> {
        self.inner.shape(output, input)
    }

    fn features(&self, shown: &Shown, outputs: &[Output]) -> Result<Vec<Tensor>> {
        let found = self.inner.features(shown, outputs)?;
        let changed = |(tensor, output): (Tensor, &Output)| match output {
            Output::Embedding => self.embedding(shown, &tensor).at(|| "its transformed embedding".to_string()),
            _ => Ok(tensor),
        };
        found.into_iter().zip(outputs).map(changed).collect()
    }

    fn maps(&self) -> Vec<String> {
        self.inner.maps()
    }

    fn knows_any_face(&self) -> bool {
        self.inner.knows_any_face()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::{Face, FaceBatch};
    use crate::plugin::Workbench;
    use crate::plugin::bounds::{OutOfBounds, out_of_bounds_of};
    use crate::teacher::{Preprocessing, cannot_offer};

    /// The colour of the upper left pixel.
    struct FirstPixel(TeacherCard);

    impl Teacher for FirstPixel {
        fn card(&self) -> &TeacherCard {
            &self.0
        }

        fn shape(&self, output: &Output, _: usize) -> Result<Vec<usize>> {
            match output {
                Output::Embedding => Ok(vec![3]),
                other => Err(cannot_offer(other, "`embedding`")),
            }
        }

        fn features(&self, shown: &Shown, outputs: &[Output]) -> Result<Vec<Tensor>> {
            outputs
                .iter()
                .map(|_| Ok(shown.faces().tensor().narrow(2, 0, 1)?.narrow(3, 0, 1)?.squeeze(3)?.squeeze(2)?))
                .collect()
        }
    }

    fn options() -> Transformed {
        Transformed { teacher: "first".into(), mirror: true, whiten: None, identity: 0.0, data: None }
    }

    #[test]
    fn the_sum_over_both_sides_is_that_of_the_mirror_image() {
        let views = vec!["high".to_string()];
        let card = TeacherCard { input_size: None, preprocessing: Preprocessing::none(), views, default_map: None };
        let inner: Arc<dyn Teacher> = Arc::new(FirstPixel(card));
        let bench = Workbench::new(Device::Cpu).with("teacher", "first", inner);
        let teacher = options().build(&BuildContext::new(&bench)).expect("a teacher");
        let face = Face::new(2, 2, vec![255, 0, 0, 0, 128, 0, 9, 9, 9, 9, 9, 9]).expect("a face");
        let embed = |face: Face| {
            let batch = FaceBatch::from_faces(&[face], &Device::Cpu).expect("a batch");
            let found = teacher.features(&batch.into(), &[Output::Embedding]).expect("features");
            found[0].to_vec2::<f32>().expect("a row").remove(0)
        };
        let half = 0.5f32.sqrt();
        for row in [embed(face.clone()), embed(face.flipped())] {
            assert!(
                row.iter().zip([half, half, 0.0]).all(|(found, expected)| (found - expected).abs() < 1e-6),
                "{row:?}"
            );
        }
    }

    struct Two(Vec<String>);

    impl Dataset for Two {
        fn len(&self) -> usize {
            3
        }

        fn people(&self) -> &[String] {
            &self.0
        }

        fn person(&self, index: usize) -> Option<usize> {
            [Some(0), Some(0), None][index]
        }

        fn key(&self, index: usize) -> String {
            format!("face {index}")
        }

        fn face(&self, _: usize) -> Result<Face> {
            Face::new(1, 1, vec![0; 3])
        }
    }

    #[test]
    fn targets_are_drawn_towards_the_mean_of_known_people() {
        let rows = [1.0, 0.0, 0.0, 1.0, -1.0, 0.0];
        let dataset = Two(vec!["Ann".into(), "Bob".into()]);
        let centres = Centres::new(&rows, 2, &dataset, 0.5).expect("centres");
        let x = Tensor::from_slice(&rows, (3, 2), &Device::Cpu).expect("rows");
        let keys = ["face 0", "face 2", "a mixture"].map(String::from);
        let found = centres.draw(&x, &keys).and_then(|x| Ok(x.to_vec2::<f32>()?)).expect("rows");
        // Halfway between 0 and 45 degrees.
        let (sin, cos) = 22.5f32.to_radians().sin_cos();
        assert!((found[0][0] - cos).abs() < 1e-6 && (found[0][1] - sin).abs() < 1e-6, "{found:?}");
        assert_eq!(found[1..], [[0.0, 1.0], [-1.0, 0.0]]);
        assert_eq!(centres.draw(&x, &[]).and_then(|x| Ok(x.to_vec2::<f32>()?)).expect("rows")[0], [1.0, 0.0]);
    }

    #[test]
    fn options_out_of_bounds_are_named() {
        let wrong = Transformed { whiten: Some(0.7), identity: f64::NAN, ..options() };
        assert_eq!(wrong.check()[0].key, "data");
        let keys: Vec<String> = out_of_bounds_of(&wrong).iter().map(OutOfBounds::key).collect();
        assert_eq!(keys, ["identity", "whiten"]);
        assert!(Transformed { whiten: Some(0.25), data: Some("train".into()), ..options() }.check().is_empty());
    }
}
