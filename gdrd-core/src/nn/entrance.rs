//! How a recogniser for large faces sees small ones.

use candle_core::{Device, Tensor};

use super::kernels::Filter;
use super::resize::{cubic_filter, resize_faces};
use super::{Map, Plan, Preprocessing};
use crate::error::Result;
use crate::face::FaceBatch;

/// Brings faces of any size to the size and the range that a network expects: the bicubic filter with antialiasing, as PIL's and
/// [`Face::resized`](crate::face::Face::resized)'s, on numbers that are not rounded to bytes but clipped to `[0, 1]` as bytes are,
/// where the filter overshoots at edges; then the preprocessing. Faces that have the size already are only
/// preprocessed.
#[derive(Clone, Debug)]
pub struct Entrance {
    size: usize,
    preprocessing: Preprocessing,
    /// The filter, of faces of the size that is expected.
    filter: Option<Filter>,
}

impl Entrance {
    /// The entrance of a network for faces of `size` pixels, for faces of `from` pixels.
    pub fn new(from: usize, size: usize, preprocessing: Preprocessing) -> Self {
        Self { size, preprocessing, filter: (from != size).then(|| cubic_filter(from, size)) }
    }

    /// Height and width of what comes out, in pixels.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The filter, where faces change their size.
    #[cfg(feature = "train")]
    pub(super) fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    /// The channel that each of the network's is, and its mean and deviation.
    #[cfg(feature = "train")]
    pub(super) fn contract(&self) -> ([usize; 3], [f32; 3], [f32; 3]) {
        (self.preprocessing.order(), self.preprocessing.mean, self.preprocessing.std)
    }

    /// The network's input, `[batch, 3, size, size]`, without a gradient.
    ///
    /// # Errors
    /// If the faces have another size than was said.
    pub fn forward(&self, faces: &FaceBatch) -> Result<Tensor> {
        let (Device::Cpu, Some(filter)) = (faces.tensor().device(), &self.filter) else {
            return self.preprocessing.apply(&FaceBatch::from_tensor(resize_faces(faces.tensor(), self.size)?)?);
        };
        if faces.size() != filter.from {
            let text = format!("expected faces of {} pixels, found {}", filter.from, faces.size());
            return Err(crate::error::Error::component(text));
        }
        let (values, count) = (faces.tensor().flatten_all()?.to_vec1::<f32>()?, faces.len());
        let mut input = vec![0f32; count * 3 * self.size * self.size];
        self.write(&values, filter.from, &mut input);
        Ok(Tensor::from_vec(input, (count, 3, self.size, self.size), &Device::Cpu)?)
    }

    /// Writes the network's input for faces `[batch, 3, from, from]`.
    pub(super) fn write(&self, x: &[f32], from: usize, out: &mut [f32]) {
        let Preprocessing { mean, std, .. } = self.preprocessing;
        let finish = |at: usize, value: f32| (value - mean[at % 3]) / std[at % 3];
        let order = self.preprocessing.order();
        let source = |at: usize| at / 3 * 3 + order[at % 3];
        match &self.filter {
            Some(filter) => filter.write(x, source, out, finish),
            None => {
                for (at, out) in out.chunks_exact_mut(from * from).enumerate() {
                    let map = &x[source(at) * from * from..][..from * from];
                    map.iter().zip(out).for_each(|(x, y)| *y = (x - mean[at % 3]) / std[at % 3]);
                }
            }
        }
    }

    /// The entrance as part of a network's inference form.
    pub fn plan(&self, plan: &mut Plan, faces: Map) -> Map {
        plan.enter(faces, self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::{Face, Kernel};
    use crate::nn::Colour;

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().and_then(|x| x.to_vec1()).expect("values")
    }

    /// Black and white beside each other, where the filter overshoots, and every grey.
    fn faces() -> [Face; 2] {
        let noise = |i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8;
        let edges = (0..3 * 16 * 16).map(|i| if i / 12 % 2 == 0 { 0 } else { 255 }).collect();
        [(0..3 * 16 * 16).map(noise).collect(), edges].map(|pixels| Face::new(16, 16, pixels).expect("a face"))
    }

    #[test]
    fn small_faces_look_as_the_resizing_of_bytes_makes_them() {
        let faces = faces();
        let large = faces.clone().map(|face| face.resized(40, Kernel::Bicubic, true).expect("a face"));
        let of = |faces: &[Face]| FaceBatch::from_faces(faces, &Device::Cpu).expect("a batch");
        for preprocessing in
            [Preprocessing::imagenet(), Preprocessing { colour: Colour::Bgr, ..Preprocessing::imagenet() }]
        {
            let found = Entrance::new(16, 40, preprocessing).forward(&of(&faces)).expect("an input");
            let expected = preprocessing.apply(&of(&large)).expect("an input");
            // Bytes are rounded twice, once for each direction; the smallest standard deviation is 0.224.
            let most = values(&found).iter().zip(values(&expected)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(most < 2.0 / 255.0 / 0.224, "{most}");
        }
    }

    #[test]
    fn it_is_the_filter_of_maps_and_faces_of_the_size_pass() {
        let faces = FaceBatch::from_faces(&faces(), &Device::Cpu).expect("a batch");
        let bgr = Preprocessing { colour: Colour::Bgr, ..Preprocessing::default() };
        let found = Entrance::new(16, 23, bgr).forward(&faces).expect("an input");
        let large = resize_faces(faces.tensor(), 23).expect("large");
        let expected = bgr.apply(&FaceBatch::from_tensor(large).expect("faces")).expect("an input");
        assert!(values(&found).iter().zip(values(&expected)).all(|(a, b)| (a - b).abs() < 1e-5));
        let same = Entrance::new(16, 16, bgr);
        let mut written = vec![0f32; 2 * 3 * 256];
        same.write(&values(faces.tensor()), 16, &mut written);
        let expected = bgr.apply(&faces).expect("an input");
        assert_eq!(values(&same.forward(&faces).expect("an input")), values(&expected));
        assert!(written.iter().zip(values(&expected)).all(|(a, b)| (a - b).abs() < 1e-6));
        assert!(Entrance::new(12, 23, bgr).forward(&faces).is_err());
    }
}
