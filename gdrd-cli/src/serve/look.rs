//! From the bytes of images to faces and their embeddings.
//!
//! Requests lie in a queue. One thread, of the pool that the network runs on, takes all that are there: their images are decoded side by
//! side, and their faces embedded as one batch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use axum::body::Bytes;
use gdrd_core::data::{Decoding, decode, png};
use gdrd_core::error::{Error, Result};
use gdrd_student::front_end::{Aligned, Detector, Landmarks};
use gdrd_student::{Embedding, FaceEncoder};
use rayon::prelude::*;
use tokio::sync::oneshot;

use super::refusal::Refusal;
use crate::photograph::{Found, faces, whole};

/// Images that are worked on side by side at most.
const TOGETHER: usize = 32;

/// What is asked of an image.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) image: Bytes,
    /// Whether faces are looked for; if not, the image is a face. Without a detector it always is.
    pub(super) detect: bool,
    /// The least score of a face.
    pub(super) score: f32,
    /// The most faces, the largest first; 0 is all.
    pub(super) limit: usize,
}

/// A face of an image.
#[derive(Debug)]
pub(super) struct Seen {
    /// `[left, top, right, bottom]`, in pixels of the upright image.
    pub(super) bounds: [i64; 4],
    /// How sure the detector is; 1 without one.
    pub(super) probability: f32,
    pub(super) landmarks: Option<Landmarks>,
    pub(super) embedding: Embedding,
    /// Height of the face in the image, in pixels, at most that of an aligned face.
    pub(super) pixels: usize,
    /// The face as the student sees it, a PNG.
    pub(super) small: Vec<u8>,
    /// Whether it is of one colour.
    pub(super) is_blank: bool,
    /// Milliseconds for reading the image and finding its faces, and for embedding the batch that it was in.
    pub(super) took: [f64; 2],
}

/// A face as the student sees it, a PNG, and whether it is of one colour.
type Small = (Vec<u8>, bool);

/// What waits for its turn.
pub(super) enum Task {
    Look(Job),
    /// Other work on the threads of the network. They may be one, which waits in [`Looker::run`]: nobody else may ask them.
    Run(Box<dyn FnOnce() + Send>),
}

/// An image, and who waits for its faces.
pub(super) struct Job {
    pub(super) wanted: Wanted,
    pub(super) answer: oneshot::Sender<std::result::Result<Vec<Seen>, Refusal>>,
}

/// What looks at images.
pub(super) struct Looker {
    pub(super) encoder: Arc<FaceEncoder>,
    pub(super) detector: Option<Box<dyn Detector>>,
    /// The most pixels of an image.
    pub(super) pixels: u64,
}

impl Looker {
    /// Works until nobody can ask any longer.
    pub(super) fn run(&self, tasks: &Receiver<Task>) {
        while let Ok(first) = tasks.recv() {
            let more = std::iter::from_fn(|| tasks.try_recv().ok()).take(TOGETHER - 1);
            let mut batch = Vec::new();
            for task in std::iter::once(first).chain(more) {
                match task {
                    Task::Run(work) => {
                        // Who waits for it hears that it came to nothing.
                        let _ = catch_unwind(AssertUnwindSafe(work));
                    }
                    // Who has gone wants no answer.
                    Task::Look(job) if job.answer.is_closed() => {}
                    Task::Look(job) => batch.push(job),
                }
            }
            let found: Vec<_> = batch.par_iter().with_max_len(1).map(|job| self.found(&job.wanted)).collect();
            self.answer(batch, found);
        }
    }

    /// The embedding of the largest face of an image.
    pub(super) fn one(&self, wanted: Wanted) -> Result<Vec<f32>> {
        let (found, _) = self.found(&wanted).map_err(|refusal| Error::data(refusal.message()))?;
        let face = found.first().ok_or_else(|| Error::data("no face was found"))?;
        Ok(self.encoder.face(&face.face)?.values().to_vec())
    }

    /// The faces of an image, and the milliseconds that it took. A panic over an image is an answer too.
    fn found(&self, wanted: &Wanted) -> std::result::Result<(Vec<Found>, f64), Refusal> {
        let start = Instant::now();
        let found = catch_unwind(AssertUnwindSafe(|| {
            let mut found = self.faces(wanted)?;
            found.iter_mut().try_for_each(|found| self.reduce(&mut found.face))?;
            Ok(found)
        }));
        let found = found.unwrap_or_else(|_| Err(Refusal::image("The image cannot be read")))?;
        Ok((found, milliseconds(start)))
    }

    /// Reduces a face to what the student needs, since those of a whole batch are kept at once. A smaller one stays as it is: its size says
    /// something about its quality.
    fn reduce(&self, face: &mut Aligned) -> Result<()> {
        let prepare = &self.encoder.header().prepare;
        if face.face.height() > prepare.size {
            face.face = prepare.apply(&face.face)?;
        }
        Ok(())
    }

    fn faces(&self, wanted: &Wanted) -> std::result::Result<Vec<Found>, Refusal> {
        self.check_size(&wanted.image)?;
        let image = decode(&wanted.image, Decoding::default()).map_err(|e| Refusal::image(e.to_string()))?;
        let Some(detector) = self.detector.as_ref().filter(|_| wanted.detect) else { return Ok(vec![whole(image)]) };
        let found = faces(&**detector, &image, wanted.score, wanted.limit)?;
        match found.is_empty() {
            true => Err(Refusal::no_face()),
            false => Ok(found),
        }
    }

    /// Refuses an image that is too large, before any of its pixels is decoded.
    fn check_size(&self, bytes: &[u8]) -> std::result::Result<(), Refusal> {
        let reader = image::ImageReader::new(std::io::Cursor::new(bytes)).with_guessed_format();
        // Who cannot be asked for a size is refused with its reason by who decodes.
        let Some((width, height)) = reader.ok().and_then(|reader| reader.into_dimensions().ok()) else { return Ok(()) };
        match u64::from(width) * u64::from(height) > self.pixels {
            true => Err(Refusal::image(format!(
                "The image has {width}x{height} pixels; this server reads images of at most {} megapixels",
                self.pixels / 1_000_000
            ))),
            false => Ok(()),
        }
    }

    /// Embeds the faces of a batch, and answers.
    fn answer(&self, batch: Vec<Job>, found: Vec<std::result::Result<(Vec<Found>, f64), Refusal>>) {
        let mut faces = Vec::new();
        let mut apart = |found: Vec<Found>| -> Vec<_> {
            let one = |Found { bounds, probability, landmarks, pixels, face }| {
                faces.push(face);
                (bounds, probability, landmarks, pixels)
            };
            found.into_iter().map(one).collect()
        };
        let found: Vec<_> =
            found.into_iter().map(|found| found.map(|(found, reading)| (apart(found), reading))).collect();
        let start = Instant::now();
        let seen = catch_unwind(AssertUnwindSafe(|| self.embedded(&faces)));
        let seen = seen.unwrap_or_else(|_| Err(Error::component("the student failed on these faces")));
        let took = milliseconds(start);
        let mut seen = seen.map(Vec::into_iter).map_err(|error| error.to_string());
        for (job, found) in batch.into_iter().zip(found) {
            let answer = found.and_then(|(found, reading)| {
                let seen = seen.as_mut().map_err(Refusal::fault)?;
                let of = |((bounds, probability, landmarks, pixels), (embedding, (small, is_blank)))| Seen {
                    bounds,
                    probability,
                    landmarks,
                    embedding,
                    pixels,
                    small,
                    is_blank,
                    took: [reading, took],
                };
                Ok(found.into_iter().zip(seen).map(of).collect())
            });
            // Who has gone wants no answer.
            let _ = job.answer.send(answer);
        }
    }

    /// The embeddings of faces, and the faces as the student sees them.
    fn embedded(&self, faces: &[Aligned]) -> Result<Vec<(Embedding, Small)>> {
        let prepare = &self.encoder.header().prepare;
        let small = |face: &Aligned| {
            let small = prepare.apply(&face.face)?;
            Ok((png(&small)?, small.is_blank()))
        };
        let small = faces.iter().map(small).collect::<Result<Vec<_>>>()?;
        Ok(self.encoder.faces(faces)?.into_iter().zip(small).collect())
    }
}

fn milliseconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1e4).round() / 10.0
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use gdrd_student::Face;
    use gdrd_student::front_end::{Bounds, Detection, TEMPLATE};

    use super::*;

    /// Finds a large face and a small one of which it is less sure, at places that it knows.
    struct Booth;

    impl Detector for Booth {
        fn detect(&self, _: &Face) -> Result<Vec<Detection>> {
            let at = |left: f32, size: f32, score| Detection {
                bounds: Bounds { left, top: 10.0, width: size, height: size },
                landmarks: TEMPLATE.map(|[x, y]| [x * size / 112.0 + left, y * size / 112.0 + 10.0]),
                score,
            };
            Ok(vec![at(10.0, 28.0, 0.95), at(60.0, 112.0, 0.6)])
        }
    }

    fn looker(detector: Option<Box<dyn Detector>>) -> Looker {
        let student = include_bytes!("../../../tests/files/student-format-1.safetensors");
        let encoder = FaceEncoder::from_bytes(student, &Device::Cpu).expect("a student");
        Looker { encoder: Arc::new(encoder), detector, pixels: 1_000_000 }
    }

    fn wanted(detect: bool, score: f32, limit: usize) -> Wanted {
        let pixels = (0..3 * 200 * 150).map(|at| (at * 7 % 251) as u8).collect();
        let image = png(&Face::new(200, 150, pixels).expect("an image")).expect("a PNG");
        Wanted { image: image.into(), detect, score, limit }
    }

    /// What is found of an image, by way of the queue.
    fn seen(looker: &Looker, wanted: Wanted) -> std::result::Result<Vec<Seen>, Refusal> {
        let (tasks, queue) = std::sync::mpsc::channel();
        let (answer, seen) = oneshot::channel();
        tasks.send(Task::Look(Job { wanted, answer })).expect("sent");
        drop(tasks);
        looker.run(&queue);
        seen.blocking_recv().expect("an answer")
    }

    #[test]
    fn faces_of_a_photograph_come_largest_first_within_score_and_limit() {
        let looker = looker(Some(Box::new(Booth)));
        let all = seen(&looker, wanted(true, 0.3, 0)).expect("faces");
        let found: Vec<([i64; 4], usize)> = all.iter().map(|seen| (seen.bounds, seen.pixels)).collect();
        assert_eq!(found, [([60, 10, 172, 122], 112), ([10, 10, 38, 38], 28)]);
        assert!(all.iter().all(|seen| seen.landmarks.is_some() && seen.small.starts_with(b"\x89PNG")));
        assert_eq!(seen(&looker, wanted(true, 0.3, 1)).expect("faces")[0].bounds[0], 60);
        assert_eq!(seen(&looker, wanted(true, 0.7, 1)).expect("faces")[0].bounds[0], 10);
        let none = seen(&looker, wanted(true, 0.99, 0)).expect_err("no face");
        assert!(none.message().contains("No face is found"), "{}", none.message());
        // Asked not to look, it takes the middle of the image.
        for looker in [&looker, &self::looker(None)] {
            let whole = seen(looker, wanted(false, 0.3, 0)).expect("a face");
            assert_eq!((whole.len(), whole[0].bounds, whole[0].pixels), (1, [25, 0, 175, 150], 150));
        }
        for (lower_half, is_blank) in [(127, true), (255, false)] {
            let pixels = (0..1200).map(|at| if at < 600 { 127 } else { lower_half }).collect();
            let image = Face::new(20, 20, pixels).and_then(|face| png(&face)).expect("a PNG");
            let whole = seen(&looker, Wanted { image: image.into(), ..wanted(false, 0.3, 0) }).expect("a face");
            assert_eq!(whole[0].is_blank, is_blank);
        }
        let one = looker.one(wanted(true, 0.3, 1)).expect("an embedding");
        assert_eq!(one, all[0].embedding.values());
    }

    #[test]
    fn what_is_kept_of_an_image_is_what_the_student_needs() {
        let looker = looker(None);
        let wanted = wanted(false, 0.3, 0);
        let image = decode(&wanted.image, Decoding::default()).expect("an image").centre_square();
        let (found, _) = looker.found(&wanted).expect("a face");
        assert_eq!((found[0].face.face.height(), found[0].pixels), (looker.encoder.header().prepare.size, 150));
        let expected = looker.encoder.face(&image).expect("an embedding");
        let seen = seen(&looker, wanted).expect("a face");
        assert_eq!((seen[0].embedding.values(), seen[0].embedding.quality()), (expected.values(), expected.quality()));
        // The size of a smaller one is a part of its quality.
        let mut tiny = Face::new(3, 3, vec![9; 27]).expect("a face").into();
        looker.reduce(&mut tiny).expect("reduced");
        assert_eq!(tiny.face.height(), 3);
    }

    #[test]
    fn work_that_fails_leaves_the_queue_going() {
        let (tasks, queue) = std::sync::mpsc::channel();
        let (answer, seen) = oneshot::channel();
        tasks.send(Task::Run(Box::new(|| panic!("on purpose")))).expect("sent");
        tasks.send(Task::Look(Job { wanted: wanted(false, 0.5, 0), answer })).expect("sent");
        drop(tasks);
        looker(None).run(&queue);
        assert_eq!(seen.blocking_recv().expect("an answer").expect("a face").len(), 1);
    }
}
