//! The losses of other systems and their gradients are those of public code; `golden/compared/ORIGIN.md` says of which.

use gdrd_core::loss::{
    AdaFace, AttentionDistance, AttentionTransfer, ClassifierReuse, Compared, Crd, CurricularFace, FeatureRegression,
    LossConfig, MagFace, MapSimilarity, Metric, Mining, MkMmd, Octuplet, Pkt, RivalPenalised, Rkd, Siamese,
    SimilarityPreserving, SphereFace, Triplet, WaveletSimilarity,
};
use gdrd_core::teacher::Output;

use crate::golden::{Golden, formula};
use crate::golden_losses::{Case, WIDE, WIDTH, Wanted};

/// Who the faces are where pairs count: three people with two faces each.
const PAIRS: [usize; 6] = [3, 0, 3, 1, 1, 0];

fn embedding() -> candle_core::Tensor {
    formula::image("embedding", (6, WIDTH))
}

fn teacher() -> candle_core::Tensor {
    formula::image("teacher", (6, WIDE))
}

#[test]
fn margins() {
    let golden = Golden::read("compared");
    let rival = RivalPenalised { scale: 16.0, margin: 0.3, threshold: 0.2, ..RivalPenalised::default() };
    let cases: [(&str, &dyn LossConfig); 7] = [
        ("sphereface", &SphereFace { lambda_start: 0.0, lambda_end: 0.0, ..SphereFace::default() }),
        ("magface", &MagFace { easy_margin: false, ..MagFace::default() }),
        ("magface_easy", &MagFace::default()),
        ("adaface", &AdaFace { width: 3.0, momentum: 0.3, ..AdaFace::default() }),
        ("curricularface", &CurricularFace { momentum: 0.2, ..CurricularFace::default() }),
        ("rival", &RivalPenalised { easy_margin: false, ..rival.clone() }),
        ("rival_angular", &RivalPenalised { angular: true, ..rival.clone() }),
    ];
    for (name, config) in cases {
        let input = golden.get(&format!("{name}.embedding")).clone();
        Case::new(&golden, name, config, input).compare();
    }
}

#[test]
fn pairs_and_triplets() {
    let golden = Golden::read("compared");
    let triplet = |margin, mining| Triplet { margin, mining, ..Triplet::default() };
    let cases: [(&str, &dyn LossConfig); 4] = [
        ("triplet_hard", &triplet(0.7, Mining::BatchHard)),
        ("triplet_all", &triplet(0.7, Mining::All)),
        ("triplet_semi", &triplet(0.2, Mining::SemiHard)),
        ("siamese", &Siamese::default()),
    ];
    for (name, config) in cases {
        let mut case = Case::new(&golden, name, config, embedding());
        case.identities = &PAIRS;
        case.compare();
    }
    let octuplet = Octuplet { distance: Metric::Cosine, ..Octuplet::default() };
    let mut case = Case::new(&golden, "octuplet", &octuplet, formula::image("wide embedding", (6, WIDE)));
    case.identities = &PAIRS;
    case.taught(Output::Embedding, teacher()).compare();
}

#[test]
fn relations_between_embeddings() {
    let golden = Golden::read("compared");
    let embeddings = SimilarityPreserving { of: Compared::Embedding, ..SimilarityPreserving::default() };
    let reuse = ClassifierReuse { scale: 16.0, ..ClassifierReuse::default() };
    let plain = ClassifierReuse { adaptive: false, ..reuse.clone() };
    let crd = Crd { temperature: 0.2, width: 7, queue: 5, ..Crd::default() };
    let cases: [(&str, &dyn LossConfig, usize); 7] = [
        ("similarity_embeddings", &embeddings, 0),
        ("pkt", &Pkt::default(), 0),
        ("rkd", &Rkd::default(), 0),
        ("mmd", &MkMmd::default(), 0),
        ("reuse", &reuse, 0),
        ("reuse_plain", &plain, 0),
        ("crd", &crd, 2),
    ];
    for (name, config, before) in cases {
        let case = Case::new(&golden, name, config, embedding()).taught(Output::Embedding, teacher());
        // Angles are sums over all triplets of what nearly cancels.
        let tolerance = (name == "rkd").then_some(1e-4);
        Case { before, tolerance, ..case }.compare();
    }
}

#[test]
fn maps() {
    let golden = Golden::read("compared");
    let cosine =
        AttentionTransfer { distance: AttentionDistance::Cosine, reweight: 2.0, ..AttentionTransfer::default() };
    let cases: [(&str, &dyn LossConfig); 6] = [
        ("attention", &AttentionTransfer::default()),
        ("attention_cosine", &cosine),
        ("similarity_maps", &SimilarityPreserving::default()),
        ("hint", &FeatureRegression { resize: true, ..FeatureRegression::default() }),
        ("map_similarity", &MapSimilarity { relation: 0.2, ..MapSimilarity::default() }),
        ("wavelet", &WaveletSimilarity { high: 0.5, ..WaveletSimilarity::default() }),
    ];
    for (name, config) in cases {
        let mut case = Case::new(&golden, name, config, formula::image("map", (3, 4, 4, 4)));
        case.wanted = Wanted::Map;
        case.identities = &[1, 0, 1];
        case.taught(Output::Map("tap".into()), formula::image("target", (3, 6, 8, 8))).compare();
    }
}
