//! The forms of a face that networks see, by name, made once and kept where memory allows.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::{Dataset, Degradation, Variant};
use crate::data::Augment;
use crate::degrade::Downscale;
use crate::digest;
use crate::error::{Context, Error, Result};
use crate::face::{Face, Kernel};
use crate::seed::{Seed, Stream};

/// The view of faces as the dataset has them, unless the recipe has another `[view.high]`.
pub const HIGH: &str = "high";
/// The view behind `[degradation]`.
pub const LOW: &str = "low";

/// Bytes of small faces that are kept in memory, for each view.
const KEPT_BYTES: usize = 1 << 30;

/// Bytes of whole faces that are kept in memory, where training asks for them again and again.
const KEPT_WHOLE_BYTES: usize = 1 << 28;

/// A dataset in all views of a recipe.
#[derive(Clone)]
pub struct Views {
    dataset: Arc<dyn Dataset>,
    content: String,
    forms: BTreeMap<String, Form>,
    whole: Arc<Whole>,
}

/// A face with the change of a variant, before any view reduces it.
#[derive(Clone)]
pub(super) struct Changed {
    /// Its own width.
    width: usize,
    /// What it was brought to before the change, if it was.
    size: Option<usize>,
    face: Face,
}

#[derive(Clone)]
struct Form {
    degradation: Arc<dyn Degradation>,
    content: String,
    kept: Arc<Vec<OnceLock<Face>>>,
}

/// Faces as the dataset has them, where all of them fit into memory by the size of the first one that was asked for.
#[derive(Default)]
struct Whole(OnceLock<(usize, Vec<OnceLock<Face>>)>);

impl Whole {
    fn get(&self, index: usize) -> Option<Face> {
        self.0.get()?.1.get(index)?.get().cloned()
    }

    fn keep(&self, index: usize, count: usize, face: &Face) {
        let bytes = face.pixels().len();
        let new = || (bytes, slots(if bytes.saturating_mul(count) <= KEPT_WHOLE_BYTES { count } else { 0 }));
        let (most, slots) = self.0.get_or_init(new);
        if let Some(slot) = slots.get(index).filter(|_| bytes <= *most) {
            slot.get_or_init(|| face.clone());
        }
    }
}

fn slots(count: usize) -> Vec<OnceLock<Face>> {
    (0..count).map(|_| OnceLock::new()).collect()
}

impl Views {
    /// A dataset without views; `content` is the digest of everything that it is.
    pub fn new(dataset: Arc<dyn Dataset>, content: impl Into<String>) -> Self {
        Self { dataset, content: content.into(), forms: BTreeMap::new(), whole: Arc::default() }
    }

    /// Adds the view `name`; `content` is the digest of everything that the degradation is.
    #[must_use]
    pub fn with(mut self, name: &str, degradation: Arc<dyn Degradation>, content: impl Into<String>) -> Self {
        let bytes = |small: &Downscale| self.dataset.len() * 3 * small.size * small.size;
        let is_kept =
            !degradation.is_random() && degradation.downscale().is_some_and(|small| bytes(small) <= KEPT_BYTES);
        let kept = Arc::new(slots(if is_kept { self.dataset.len() } else { 0 }));
        self.forms.insert(name.to_string(), Form { degradation, content: content.into(), kept });
        self
    }

    /// The faces themselves.
    pub fn dataset(&self) -> &dyn Dataset {
        &*self.dataset
    }

    fn form(&self, view: &str) -> Result<&Form> {
        self.forms.get(view).ok_or_else(|| {
            Error::recipe(format!("no view is called `{view}`; there are {:?}", self.forms.keys().collect::<Vec<_>>()))
        })
    }

    /// What a view does to faces without chance; none if it leaves them as they are.
    ///
    /// # Errors
    /// If there is no such view.
    pub fn downscale(&self, view: &str) -> Result<Option<&Downscale>> {
        Ok(self.form(view)?.degradation.downscale())
    }

    /// Whether a face may look different every time. Faces of low resolution are not degraded, so nothing is random in them.
    ///
    /// # Errors
    /// If there is no such view.
    pub fn is_random(&self, view: &str) -> Result<bool> {
        Ok(self.form(view)?.degradation.is_random() && !self.dataset.is_low_resolution())
    }

    /// Digest of everything that the faces of a view depend on.
    ///
    /// # Errors
    /// If there is no such view.
    pub fn content(&self, view: &str) -> Result<String> {
        Ok(digest::of_value(&(&self.content, &self.form(view)?.content)))
    }

    /// Height and width of the faces of a view, in pixels, by the first face.
    ///
    /// # Errors
    /// If there is no such view or no face.
    pub fn size(&self, view: &str) -> Result<usize> {
        match self.downscale(view)? {
            Some(small) => Ok(small.size),
            None if self.dataset.is_empty() => Err(Error::data("the dataset has no face")),
            None => match self.dataset.size(0) {
                Some(size) => Ok(size),
                None => Ok(self.dataset.face(0).at(|| self.dataset.place(0))?.width()),
            },
        }
    }

    /// A face in a view; `random` is used by random degradations only. The variant's change is made to the face as the dataset
    /// has it, so that all views show the same one; mirroring comes last.
    ///
    /// # Errors
    /// If there is no such view, or the face cannot be read or degraded.
    pub fn face(&self, index: usize, view: &str, variant: (&Augment, Variant), random: &mut Stream) -> Result<Face> {
        self.made(None, index, view, variant, random)
    }

    /// [`face`](Views::face) for training, which asks again: whole faces are kept where memory allows. `changed` is for views of
    /// one face with one change, which is read and changed once.
    ///
    /// # Errors
    /// As [`face`](Views::face).
    pub(super) fn face_of(
        &self,
        changed: &OnceCell<Changed>,
        index: usize,
        view: &str,
        variant: (&Augment, Variant),
        random: &mut Stream,
    ) -> Result<Face> {
        self.made(Some(changed), index, view, variant, random)
    }

    fn made(
        &self,
        training: Option<&OnceCell<Changed>>,
        index: usize,
        view: &str,
        (augment, variant): (&Augment, Variant),
        random: &mut Stream,
    ) -> Result<Face> {
        let form = self.form(view)?;
        let slot = form.kept.get(index).filter(|_| variant.draw == 0);
        let face = match slot.and_then(OnceLock::get) {
            Some(face) => face.clone(),
            None => {
                let place = || self.dataset.place(index);
                let small = form.degradation.downscale();
                // A view that reduces does so from the face's own size, as evaluation and the student file do.
                let brought_to =
                    |width: usize| self.dataset.size(index).filter(|size| small.is_none() && *size != width);
                let own = || -> Result<Face> {
                    if let Some(face) = self.whole.get(index) {
                        return Ok(face);
                    }
                    let face = self.dataset.face(index).at(place)?;
                    // What is kept as this view is asked for once.
                    if training.is_some() && slot.is_none() {
                        self.whole.keep(index, self.dataset.len(), &face);
                    }
                    Ok(face)
                };
                let read = || -> Result<Changed> {
                    let own = own()?;
                    let (width, size) = (own.width(), brought_to(own.width()));
                    let own = match size {
                        Some(size) => own.resized(size, Kernel::Bicubic, true).at(place)?,
                        None => own,
                    };
                    Ok(Changed { width, size, face: augment.changed(own, index, variant).at(place)? })
                };
                let alone = OnceCell::new();
                let shared = training.unwrap_or(&alone);
                let other;
                let changed = match shared.get() {
                    Some(found) if found.size == brought_to(found.width) => found,
                    Some(_) => {
                        other = read()?;
                        &other
                    }
                    None => {
                        let made = read()?;
                        shared.get_or_init(|| made)
                    }
                };
                let face = match small.filter(|_| self.dataset.is_low_resolution()) {
                    Some(small) => small.apply(&changed.face).at(place)?,
                    None => form.degradation.degrade(&changed.face, random).at(place)?,
                };
                match slot {
                    Some(slot) => slot.get_or_init(|| face).clone(),
                    None => face,
                }
            }
        };
        Ok(if variant.mirrored { face.flipped() } else { face })
    }

    /// A face in a view that is not random, as it is.
    ///
    /// # Errors
    /// As [`face`](Views::face).
    pub fn plain(&self, index: usize, view: &str) -> Result<Face> {
        self.face(index, view, (&Augment::none(), Variant::default()), &mut Seed(0).stream("unused", &[]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One face of its own size, in a dataset that brings faces to 32 pixels.
    struct One(Face);

    impl Dataset for One {
        fn len(&self) -> usize {
            1
        }

        fn people(&self) -> &[String] {
            &[]
        }

        fn person(&self, _: usize) -> Option<usize> {
            None
        }

        fn key(&self, _: usize) -> String {
            "one".into()
        }

        fn size(&self, _: usize) -> Option<usize> {
            Some(32)
        }

        fn face(&self, _: usize) -> Result<Face> {
            Ok(self.0.clone())
        }
    }

    fn views(size: usize) -> (Views, Face) {
        let pixels = (0..3 * size * size).map(|at| (at * 83 % 251) as u8).collect();
        let face = Face::new(size, size, pixels).expect("a face");
        let small = Downscale { size: 8, ..Downscale::default() };
        let views = Views::new(Arc::new(One(face.clone())), "one");
        (views.with(HIGH, Arc::new(crate::data::AsIs {}), "high").with(LOW, Arc::new(small), "low"), face)
    }

    #[test]
    fn a_face_that_is_small_already_is_not_resampled_twice() {
        let resized = |face: &Face, size| face.resized(size, Kernel::Bicubic, true).expect("resized");
        for size in [4, 8, 16, 32, 64] {
            let (views, own) = views(size);
            let whole = resized(&own, 32);
            assert_eq!(views.plain(0, HIGH).expect("high"), whole, "{size} pixels");
            assert_eq!((views.size(HIGH).expect("a size"), views.size(LOW).expect("a size")), (32, 8));
            // In one step from its own size: what evaluation makes of the dataset's face.
            let expected = Downscale { size: 8, ..Downscale::default() }.apply(&own).expect("small");
            assert_eq!(views.plain(0, LOW).expect("low"), expected, "{size} pixels");
            if size == 8 {
                assert_eq!(expected, own);
                assert_ne!(resized(&whole, 8), own, "there and back is another face");
            }
        }
    }

    /// A dataset whose only face cannot be read.
    struct Damaged;

    impl Dataset for Damaged {
        fn len(&self) -> usize {
            1
        }

        fn people(&self) -> &[String] {
            &[]
        }

        fn person(&self, _: usize) -> Option<usize> {
            None
        }

        fn key(&self, _: usize) -> String {
            "Ann/1".into()
        }

        fn face(&self, _: usize) -> Result<Face> {
            Err(Error::data("not an image"))
        }
    }

    #[test]
    fn a_face_that_cannot_be_read_is_named_once() {
        let views = Views::new(Arc::new(Damaged), "damaged").with(HIGH, Arc::new(crate::data::AsIs {}), "high");
        assert_eq!(views.plain(0, HIGH).expect_err("no face").to_string(), "Ann/1: not an image");
    }

    /// Faces that are counted as they are drawn.
    struct Counted(usize, std::sync::atomic::AtomicUsize);

    impl Dataset for Counted {
        fn len(&self) -> usize {
            self.0
        }

        fn people(&self) -> &[String] {
            &[]
        }

        fn person(&self, _: usize) -> Option<usize> {
            None
        }

        fn key(&self, index: usize) -> String {
            index.to_string()
        }

        fn face(&self, index: usize) -> Result<Face> {
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Face::new(32, 32, (0..3 * 32 * 32).map(|at| (at * (83 + index) % 251) as u8).collect())
        }
    }

    #[test]
    fn training_keeps_whole_faces_where_memory_allows() {
        let drawn = |count: usize, training: bool, variant: Variant| {
            let faces = Arc::new(Counted(count, 0.into()));
            let views = Views::new(faces.clone(), "counted").with(HIGH, Arc::new(crate::data::AsIs {}), "high");
            let (augment, mut random) = (Augment { rotate: 20.0, ..Augment::default() }, Seed(0).stream("unused", &[]));
            let mut once = || match training {
                true => views.face_of(&OnceCell::new(), 1, HIGH, (&augment, variant), &mut random),
                false => views.face(1, HIGH, (&augment, variant), &mut random),
            };
            let (first, second) = (once().expect("a face"), once().expect("a face"));
            assert_eq!(first, second);
            faces.1.load(std::sync::atomic::Ordering::Relaxed)
        };
        for variant in [Variant::default(), Variant { draw: 3, mirrored: true }] {
            assert_eq!(drawn(2, true, variant), 1, "kept");
            assert_eq!(drawn(2, false, variant), 2, "nothing is kept of what is asked for once");
            assert_eq!(drawn(KEPT_WHOLE_BYTES / 3072 + 1, true, variant), 2, "too many to be kept");
        }
    }

    #[test]
    fn views_of_one_change_share_what_they_can() {
        for size in [8, 32, 64] {
            let (views, _) = views(size);
            let (augment, mut random) = (Augment { rotate: 20.0, ..Augment::default() }, Seed(0).stream("unused", &[]));
            let variant = (&augment, Variant { draw: 3, mirrored: true });
            let changed = OnceCell::new();
            for view in [LOW, HIGH, LOW] {
                let shared = views.face_of(&changed, 0, view, variant, &mut random).expect("a face");
                assert_eq!(
                    shared,
                    views.face(0, view, variant, &mut random).expect("a face"),
                    "{view} of {size} pixels"
                );
            }
        }
    }
}
