//! A protocol over resolutions: what an embedder achieves on faces of a few pixels, and with a gallery of another resolution.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Unexpected, Visitor};
use serde::{Serialize, Serializer};

use super::outcome::{Curve, Figure, Matrix, Outcome, Unit};
use crate::degrade::{Degraded, Downscale};
use crate::embedder::Embedder;
use crate::error::{Problem, Result};

/// The sizes that a face can be brought to, in pixels.
const RANGE: std::ops::RangeInclusive<usize> = 4..=512;

/// The most sizes of one curve.
const MOST: usize = 50;

/// How large the faces of a gallery are shown: as they are, or at a number of pixels. In a recipe `"native"` or `112`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GallerySize {
    /// As the dataset has them.
    Native,
    /// Brought to this height and width, in pixels.
    Pixels(usize),
}

impl Serialize for GallerySize {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Native => serializer.serialize_str("native"),
            Self::Pixels(size) => size.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for GallerySize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Read;

        impl Visitor<'_> for Read {
            type Value = GallerySize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`native` or a number of pixels")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<GallerySize, E> {
                match text {
                    "native" => Ok(GallerySize::Native),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }

            fn visit_i64<E: serde::de::Error>(self, size: i64) -> std::result::Result<GallerySize, E> {
                let wrong = || E::invalid_value(Unexpected::Signed(size), &self);
                usize::try_from(size).map(GallerySize::Pixels).map_err(|_| wrong())
            }

            fn visit_u64<E: serde::de::Error>(self, size: u64) -> std::result::Result<GallerySize, E> {
                usize::try_from(size).map(GallerySize::Pixels).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl JsonSchema for GallerySize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "GallerySize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pixels = json_schema!({ "type": "integer", "minimum": RANGE.start(), "maximum": RANGE.end() });
        json_schema!({ "anyOf": [{ "const": "native" }, pixels] })
    }
}

/// The name of the curve, and of the table, of the headline over the size of a face.
pub(crate) const OVER_SIZES: &str = "Resolution";

/// What is wrong with the option `sizes` beyond bounds.
pub(super) fn check(sizes: &[usize]) -> Option<Problem> {
    let rising = sizes.windows(2).all(|two| two[0] < two[1]) && sizes.len() <= MOST;
    Problem::unless(rising, "sizes", || format!("expected at most {MOST} sizes that rise, found {sizes:?}"))
}

/// What `measure` finds with the faces as they are, and its headline again with faces brought to each of `sizes`: as figures that
/// are kept aside, as a curve, and as a table with 95 % intervals where the headline has them. `measure` is given the embedder of the gallery and that of the probes; only the gallery's obeys
/// `gallery`. Faces are brought to a size by the default [`Downscale`] before the embedder brings them to its own.
///
/// # Errors
/// As `measure`.
pub(super) fn over_sizes(
    embedder: &dyn Embedder,
    sizes: &[usize],
    gallery: Option<GallerySize>,
    measure: impl Fn(&dyn Embedder, &dyn Embedder) -> Result<Outcome>,
) -> Result<Outcome> {
    let at = |probes: Option<usize>| with_gallery(embedder, probes, gallery, &measure);
    let mut outcome = at(None)?;
    let mut found = Vec::new();
    for size in sizes {
        let figure = at(Some(*size))?.headline()?.clone();
        let (label, name) = (format!("{size}x{size}"), format!("{} at {size}x{size}", figure.name));
        found.push((*size as f64, label, Figure { name, ..figure }));
    }
    let whose = match gallery {
        None => "face's size",
        Some(_) => "probe's size",
    };
    add_curve(&mut outcome, OVER_SIZES, (whose, ", pixels"), found)?;
    Ok(outcome)
}

/// Adds the headline at several places `(x, label, figure)`: as figures that are kept aside, as a table with the intervals, and as a
/// curve. `x` is the name of the places and their unit. Nothing where `found` is empty.
pub(super) fn add_curve(
    outcome: &mut Outcome,
    name: &str,
    (x, unit): (&str, &str),
    found: Vec<(f64, String, Figure)>,
) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let headline = outcome.headline()?;
    let y = format!("{}{}", headline.name, if headline.unit == Unit::Percent { ", %" } else { "" });
    let (mut points, mut rows) = (Vec::new(), Vec::new());
    for (at, label, figure) in found {
        points.extend(figure.value.map(|value| (at, value)));
        if let (Some(value), Some(low), Some(high)) = (figure.value, figure.low, figure.high) {
            rows.push((label, vec![value, low, high]));
        }
        outcome.figures.push(figure.aside());
    }
    if !rows.is_empty() {
        let columns = [x, &y, "95 % from", "to"].map(String::from).to_vec();
        outcome.matrices.push(Matrix { name: name.into(), columns, rows });
    }
    outcome.curves.push(Curve {
        name: name.into(),
        x: format!("{x}{unit}"),
        y,
        log_x: false,
        points,
        reading: String::new(),
    });
    Ok(())
}

/// What `measure` finds, given the embedder of the gallery and that of the probes, which are brought to `probes` pixels first.
pub(super) fn with_gallery<T>(
    embedder: &dyn Embedder,
    probes: Option<usize>,
    gallery: Option<GallerySize>,
    measure: impl Fn(&dyn Embedder, &dyn Embedder) -> Result<T>,
) -> Result<T> {
    let gallery = match gallery {
        None => probes,
        Some(GallerySize::Native) => None,
        Some(GallerySize::Pixels(size)) => Some(size),
    };
    let small = |size: Option<usize>| Some(Degraded::new(embedder, Downscale { size: size?, ..Downscale::default() }));
    let (gallery, probes) = (small(gallery), small(probes));
    measure(either(gallery.as_ref(), embedder), either(probes.as_ref(), embedder))
}

fn either<'a>(small: Option<&'a Degraded<'a>>, whole: &'a dyn Embedder) -> &'a dyn Embedder {
    match small {
        Some(small) => small,
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedder::Embeddings;
    use crate::face::Face;

    /// An embedding that says how large the faces were.
    struct Sizes;

    impl Embedder for Sizes {
        fn name(&self) -> &str {
            "sizes"
        }

        fn width(&self) -> usize {
            2
        }

        fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
            Embeddings::from_rows(2, faces.iter().flat_map(|face| [face.width() as f32, 1.0]).collect())
        }
    }

    fn size(embedder: &dyn Embedder) -> f64 {
        let face = Face::new(40, 40, vec![9; 4800]).expect("a face");
        let row = embedder.embed(&[face]).expect("an embedding");
        f64::from(row.known(0)[0] / row.known(0)[1]).round()
    }

    fn swept(gallery: Option<GallerySize>) -> Outcome {
        let measure = |gallery: &dyn Embedder, probes: &dyn Embedder| {
            Ok(Outcome {
                what: "faces".into(),
                headline: "rank-1".into(),
                figures: vec![
                    Figure::percent("rank-1", size(probes) / 100.0 + size(gallery), 1).between(1.0, size(probes)),
                ],
                curves: Vec::new(),
                matrices: Vec::new(),
                items: Vec::new(),
                items_digest: String::new(),
            })
        };
        over_sizes(&Sizes, &[8, 16], gallery, measure).expect("an outcome")
    }

    #[test]
    fn both_sides_are_brought_to_each_size() {
        let outcome = swept(None);
        outcome.check().expect("good");
        let values: Vec<Option<f64>> = outcome.figures.iter().map(|figure| figure.value).collect();
        assert_eq!(values, [Some(4040.0), Some(808.0), Some(1616.0)]);
        assert_eq!(outcome.figures[1].name, "rank-1 at 8x8");
        assert!(!outcome.figures[1].in_table);
        assert_eq!(outcome.curves[0].points, [(8.0, 808.0), (16.0, 1616.0)]);
        assert_eq!(outcome.matrices[0].columns, ["face's size", "rank-1, %", "95 % from", "to"]);
        let rows = [("8x8".to_string(), vec![808.0, 1.0, 8.0]), ("16x16".into(), vec![1616.0, 1.0, 16.0])];
        assert_eq!(outcome.matrices[0].rows, rows);
    }

    #[test]
    fn a_gallery_keeps_its_own_size() {
        let values =
            |gallery| swept(Some(gallery)).figures.iter().filter_map(|f| f.value.map(f64::round)).collect::<Vec<_>>();
        assert_eq!(values(GallerySize::Native), [4040.0, 4008.0, 4016.0]);
        assert_eq!(values(GallerySize::Pixels(20)), [2040.0, 2008.0, 2016.0]);
    }

    #[test]
    fn sizes_are_checked_and_read() {
        assert!(check(&[8, 16]).is_none());
        assert_eq!(check(&[16, 8]).expect("a problem").key, "sizes");
        let read = |text: &str| serde_json::from_str::<GallerySize>(text).map_err(|error| error.to_string());
        assert_eq!(read("\"native\""), Ok(GallerySize::Native));
        assert_eq!(read("112"), Ok(GallerySize::Pixels(112)));
        assert!(read("\"natve\"").expect_err("no word").contains("expected `native` or a number of pixels"));
        assert!(read("-3").is_err());
        assert_eq!(
            serde_json::to_string(&[GallerySize::Native, GallerySize::Pixels(9)]).expect("text"),
            "[\"native\",9]"
        );
    }
}
