//! What about a protocol's faces no camera took, as a note of its headline, so that it stands in the run's files.

use super::outcome::Outcome;
use crate::data::Dataset;

/// How the note begins.
const SAID: &str = "faces not as photographed: ";

/// A note of what was [`made`](Dataset::made) of the faces of some datasets; none if nothing was.
pub(super) fn made_note<'a>(datasets: impl IntoIterator<Item = &'a dyn Dataset>) -> Option<String> {
    let mut all: Vec<String> = datasets.into_iter().flat_map(|dataset| dataset.made()).collect();
    all.sort();
    all.dedup();
    (!all.is_empty()).then(|| format!("{SAID}{}", all.join(", ")))
}

/// What such a note of an outcome's headline says; none if it has none.
pub(crate) fn made(outcome: &Outcome) -> Option<&str> {
    let note = outcome.headline().ok()?.note.as_deref()?;
    note.split("; ").find_map(|part| part.strip_prefix(SAID))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::Device;

    use super::super::ProtocolConfig;
    use super::super::testing::Coloured;
    use super::*;
    use crate::context::BuildContext;
    use crate::data::{DatasetConfig, Joined, Occluded, PackAs, Packed, Subset, SyntheticFaces, pack};
    use crate::embedder::{Embedder, Embeddings};
    use crate::error::Result;
    use crate::face::Face;
    use crate::plugin::Workbench;

    fn built<C: DatasetConfig + serde::de::DeserializeOwned>(
        bench: &Workbench,
        options: serde_json::Value,
    ) -> Arc<dyn Dataset> {
        let config: C = serde_json::from_value(options).expect("options");
        config.build(&BuildContext::new(bench)).expect("a dataset").into()
    }

    /// An embedding is a face's first colour.
    struct Corner;

    impl Embedder for Corner {
        fn name(&self) -> &str {
            "corner"
        }

        fn width(&self) -> usize {
            3
        }

        fn embed(&self, faces: &[Face]) -> Result<Embeddings> {
            let colour = |face: &Face| face.pixels()[..3].iter().map(|v| 1.0 + f32::from(*v)).collect::<Vec<_>>();
            Embeddings::from_rows(3, faces.iter().flat_map(colour).collect())
        }
    }

    #[test]
    fn drawing_and_painting_are_said_through_every_wrapper() {
        let drawn = SyntheticFaces { identities: 4, images_per_identity: 4, size: 56, ..SyntheticFaces::default() };
        let drawn: Arc<dyn Dataset> =
            drawn.build(&BuildContext::new(&Workbench::new(Device::Cpu))).expect("faces").into();
        let photographs: Arc<dyn Dataset> = Arc::new(Coloured::of(&[("", [1; 3]), ("", [2; 3])]));
        let bench =
            Workbench::new(Device::Cpu).with("dataset", "drawn", drawn).with("dataset", "photographs", photographs);
        let covered = |of: &str| serde_json::json!({ "data": of, "situations": ["plain", "sunglasses", "scarf"] });
        let painted = built::<Occluded>(&bench, covered("drawn"));
        let bench = bench.with("dataset", "covered", painted);
        let some = built::<Subset>(&bench, serde_json::json!({ "data": "covered", "share": 1.0 }));
        let bench = bench.with("dataset", "some", some);
        let all = built::<Joined>(&bench, serde_json::json!({ "parts": ["photographs", "some"] }));
        let expected = ["drawn by gdrd".to_string(), "painted with scarf, sunglasses".into()];
        assert_eq!(all.made(), expected);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("faces.pack");
        pack(&*all, &PackAs::Images, &file, false, &Default::default(), &mut |_, _| Ok(())).expect("written");
        let packed = built::<Packed>(&bench, serde_json::json!({ "file": file }));
        assert_eq!(packed.made(), expected);
        let photographs = built::<Joined>(&bench, serde_json::json!({ "parts": ["photographs"] }));
        let plain = serde_json::json!({ "data": "photographs", "situations": ["plain"] });
        assert!(photographs.made().is_empty() && built::<Occluded>(&bench, plain).made().is_empty());
        assert_eq!(made_note([&*photographs]), None);

        // Every protocol that stands beside the paper's tables has it in its headline.
        let bench = bench.with("dataset", "packed", packed);
        let cx = BuildContext::new(&bench);
        let protocols = [
            ("verification", serde_json::json!({ "data": "packed", "drawn_pairs": 4, "folds": 2 })),
            ("identification", serde_json::json!({ "gallery": "packed", "classifier": "nearest-mean" })),
            ("retrieval", serde_json::json!({ "gallery": "packed" })),
            ("open-set-identification", serde_json::json!({ "gallery": "packed", "fpir": [0.5] })),
        ];
        for (kind, options) in protocols {
            let config: Box<dyn ProtocolConfig> = match kind {
                "verification" => Box::new(serde_json::from_value::<super::super::Verification>(options).expect(kind)),
                "identification" => {
                    Box::new(serde_json::from_value::<super::super::Identification>(options).expect(kind))
                }
                "retrieval" => Box::new(serde_json::from_value::<super::super::Retrieval>(options).expect(kind)),
                _ => Box::new(serde_json::from_value::<super::super::OpenSetIdentification>(options).expect(kind)),
            };
            let outcome = config.build(&cx).and_then(|protocol| protocol.evaluate(&Corner, &cx)).expect(kind);
            assert_eq!(made(&outcome), Some(&*expected.join(", ")), "{kind}");
        }
    }
}
