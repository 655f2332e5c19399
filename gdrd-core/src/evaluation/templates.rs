//! One embedding for several faces: for each person of a gallery, and for each template of probes.
//!
//! IJB-B and IJB-C (Maze et al., "IARPA Janus Benchmark - C", ICB 2018) ask about templates, sets of a person's images and frames
//! of videos; a video with all its frames is one of a template's media. With unit-length embeddings x of the images, and M media in the
//! template, of which medium m has the images I(m), the embedding of a template is
//!
//! `t = sum over m of (1 / |I(m)|) * sum over i in I(m) of x(i)`, brought to unit length.
//!
//! IJB says what a template is, not what becomes of its images. The equation is that of insightface's public evaluation
//! (`image2template_feature` in `recognition/_evaluation_/ijb`), with images of unit length. That they have equal weights is our
//! choice: insightface's defaults leave embeddings their lengths and multiply them by the detector's score.

use super::split::{Fusing, Split};
use crate::embedder::Embeddings;
use crate::error::{Error, Problem, Result};
use crate::plugin::DatasetName;

/// What is wrong with the options `template` and `media` beside `probes` and `split`; `means` says whether people have means.
pub(super) fn check(
    (template, media): Fusing,
    probes: Option<&DatasetName>,
    split: &Split,
    means: bool,
) -> impl Iterator<Item = Problem> {
    let whole = template.is_none() || probes.is_some() || !split.with.is_empty();
    let found = [
        Problem::unless(whole, "template", || {
            "expected it only with `probes` or `split.with`: faces that are drawn leave no template whole".into()
        }),
        Problem::unless(media.is_none() || template.is_some() || means, "media", || {
            "expected it only with `template` or `classifier = \"nearest-mean\"`: nothing else is averaged".into()
        }),
    ];
    found.into_iter().flatten()
}

/// The weighted mean of the embeddings of each person or template, brought to unit length: the faces of row `p` are those of which
/// `of` says `p`, and its name is `names[p]`.
///
/// # Errors
/// If one has no embedding, or its embeddings cancel out.
pub(super) fn templates(embeddings: &Embeddings, of: &[u32], weights: &[f64], names: &[String]) -> Result<Embeddings> {
    let width = embeddings.width();
    let mut sums = vec![0f64; names.len() * width];
    for (row, (of, weight)) in of.iter().zip(weights).enumerate() {
        let sum = &mut sums[*of as usize * width..][..width];
        sum.iter_mut().zip(embeddings.known(row)).for_each(|(sum, value)| *sum += weight * f64::from(*value));
    }
    for (sum, name) in sums.chunks_exact(width).zip(names) {
        if sum.iter().map(|value| value * value).sum::<f64>() < 1e-12 {
            return Err(Error::component(format!("the embeddings of `{name}` have no mean direction")));
        }
    }
    Embeddings::from_rows(width, sums.into_iter().map(|value| value as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Coloured, Pixel, bench, shown_mistakes};
    use super::super::{Outcome, Protocol, ProtocolConfig};
    use super::*;
    use crate::context::BuildContext;
    use crate::evaluation::{Identification, OpenSetIdentification};
    use crate::plugin::Workbench;

    const BLUE: [u8; 3] = [0, 0, 250];

    /// Ann's first template is a video of three frames that do not look like her, and an image that does.
    fn templates_of_colours() -> Workbench {
        let known = Coloured::of(&[("Ann", [250, 0, 0]), ("Ann", [250, 0, 0]), ("Bob", [0, 250, 0])]);
        let asked = Coloured::of(&[
            ("Ann", BLUE),
            ("Ann", BLUE),
            ("Ann", BLUE),
            ("Ann", [250, 0, 0]),
            ("Bob", [0, 250, 0]),
            // Two who are not enrolled.
            ("Cy", [250, 250, 250]),
            ("", [100, 0, 173]),
            ("", [100, 0, 173]),
        ]);
        let asked = asked
            .with("template", &["a", "a", "a", "a", "b", "c", "d", "d"])
            .with("media", &["v", "v", "v", "s", "v", "v", "v", "v"])
            .with("few", &["a", "a", "a", "", "b", "c", "d", ""])
            .with("crowd", &["a", "a", "a", "a", "a", "c", "d", "d"]);
        bench(known.with("media", &["1", "1", "1"]), asked)
    }

    fn open_set(more: serde_json::Value) -> OpenSetIdentification {
        let mut options = serde_json::json!({ "gallery": "known", "probes": "asked", "fpir": [0.5] });
        let more = more.as_object().expect("options").clone();
        options.as_object_mut().expect("options").extend(more);
        serde_json::from_value(options).expect("options")
    }

    fn built(config: &dyn ProtocolConfig, bench: &Workbench) -> Result<(Box<dyn Protocol>, Outcome)> {
        let cx = BuildContext::new(bench);
        let protocol = config.build(&cx)?;
        let outcome = protocol.evaluate(&Pixel, &cx)?;
        outcome.check()?;
        Ok((protocol, outcome))
    }

    #[test]
    fn a_template_is_one_probe_and_a_long_video_counts_once() {
        let bench = templates_of_colours();
        let of = |options| built(&open_set(options), &bench).expect("an outcome");
        let whole = serde_json::json!({ "template": "template", "media": "media", "group_by": "half" });
        let (_, found) = of(whole);
        // Of the nearer stranger 0.577, of the other 0.5; Ann's cosine is 0.707.
        assert_eq!(found.items, [1.0, 1.0]);
        let groups = ["first", "second"].map(|half| found.get(&format!("TPIR at FPIR 0.5, {half}")).map(|f| f.count));
        assert_eq!(groups, [Some(1), Some(1)]);
        let note = found.figures[0].note.clone().expect("a note");
        assert!(note.contains("the probes are 4 templates of 8 images"), "{note}");
        // 1 / sqrt(10) with every frame.
        let (protocol, plain) = of(serde_json::json!({ "template": "template" }));
        assert_eq!(plain.items, [0.0, 1.0]);
        assert_eq!(plain.items_digest, found.items_digest, "the same templates");
        let shown = shown_mistakes(&*protocol, &BuildContext::new(&bench));
        assert_eq!(shown, (vec![(0, 0, true)], 1));
        let (_, images) = of(serde_json::json!({}));
        assert_eq!(images.items.len(), 5);
        assert_ne!(images.items_digest, found.items_digest);
        let options = serde_json::json!({
            "gallery": "known", "probes": "asked", "template": "template", "media": "media", "classifier": "nearest-mean",
        });
        let closed: Identification = serde_json::from_value(options).expect("options");
        assert_eq!(built(&closed, &bench).expect("an outcome").1.items, [1.0, 1.0]);
    }

    #[test]
    fn templates_that_do_not_fit_are_named() {
        let bench = templates_of_colours();
        let text = |options| built(&open_set(options), &bench).err().expect("refused").to_string();
        let found = text(serde_json::json!({ "template": "crowd" }));
        assert_eq!(found, "`template`: expected faces of one person in `a`, found `Ann` and `Bob`");
        let found = text(serde_json::json!({ "template": "few" }));
        assert!(
            found.starts_with(
                "`template`: 2 of 8 faces of the probes lack the attribute `few`, `face 3 of 8` is the first; its"
            ),
            "{found}"
        );
        let found = text(serde_json::json!({ "template": "template", "media": "few" }));
        assert!(found.starts_with("`media`: 2 of 8 faces of the probes lack the attribute `few`"), "{found}");
        let found = text(serde_json::json!({ "media": "template" }));
        assert!(found.starts_with("`media`: 3 of 3 faces of the gallery lack the attribute `template`"), "{found}");
        let found = text(serde_json::json!({ "template": "template", "group_by": "few" }));
        assert_eq!(found, "`group_by`: expected one value of `few` for all faces of `a`, found `a` and none");
        let drawn: OpenSetIdentification =
            serde_json::from_value(serde_json::json!({ "gallery": "known", "template": "template" })).expect("options");
        let softmax: Identification =
            serde_json::from_value(serde_json::json!({ "gallery": "known", "media": "media" })).expect("options");
        assert_eq!((drawn.check()[0].key, softmax.check()[0].key), ("template", "media"));
    }

    #[test]
    fn means_have_unit_length() {
        let rows = Embeddings::from_rows(2, vec![1.0, 0.0, 0.0, 2.0, 0.0, -1.0, 0.0, 1.0]).expect("rows");
        let names = ["Ann".to_string(), "Bob".to_string()];
        let found = templates(&rows, &[0, 0, 1, 1], &[1.0; 4], &names).expect_err("Bob's cancel out");
        assert_eq!(found.to_string(), "the embeddings of `Bob` have no mean direction");
        let found = templates(&rows, &[0, 0, 1, 0], &[1.0; 4], &names).expect("means");
        let close = |a: &[f32], b: [f32; 2]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close(found.known(0), [0.447_213_6, 0.894_427_2]) && close(found.known(1), [0.0, -1.0]), "{found:?}");
        // Two frames of one video count as one image.
        let found = templates(&rows, &[0, 0, 1, 0], &[1.0, 0.5, 1.0, 0.5], &names).expect("means");
        assert!(close(found.known(0), [0.5f32.sqrt(), 0.5f32.sqrt()]), "{found:?}");
    }
}
