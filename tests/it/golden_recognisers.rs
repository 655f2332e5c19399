//! Recognisers answer through their kinds as the public PyTorch code does; `golden/*/ORIGIN.md` says which code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use candle_core::{DType, Device, Tensor};
use gdrd_core::face::FaceBatch;
use gdrd_core::nn::weights::Draw;
use gdrd_core::nn::{Weights, l2_normalise};
use gdrd_core::teacher::{Colour, Output, Preprocessing, Teacher, TeacherConfig};
use gdrd_teachers::IresnetTeacher;
use gdrd_teachers::iresnet::{Iresnet, Layout, Naming};
use gdrd_tests::on_cpu;

use crate::golden::{Golden, formula};

/// The formula's tensors for the network, and the hash of their names and shapes.
fn tensors(layout: Layout) -> (BTreeMap<String, Tensor>, i64) {
    let draw: Rc<Draw> = Rc::new(|_, count, _| vec![0.0; count]);
    let made = Weights::create(&Device::Cpu, draw, |weights| Iresnet::new(layout, weights));
    formula::tensors(&made.expect("a network").1)
}

fn write(folder: &Path, tensors: &BTreeMap<String, Tensor>, prefix: &str) -> PathBuf {
    let path = folder.join("weights.safetensors");
    let named: Vec<(String, &Tensor)> = tensors.iter().map(|(name, t)| (format!("{prefix}{name}"), t)).collect();
    safetensors::serialize_to_file(named.iter().map(|(name, t)| (name.as_str(), *t)), None, &path).expect("written");
    path
}

fn options(path: &Path) -> IresnetTeacher {
    serde_json::from_value(serde_json::json!({ "weights": path })).expect("options")
}

/// The faces whose preprocessed form is the golden input.
fn faces() -> FaceBatch {
    Preprocessing::default().undo(&formula::image("faces", (1, 3, 112, 112))).expect("faces")
}

fn embedding(teacher: &dyn Teacher, faces: &FaceBatch) -> Tensor {
    teacher.features(&faces.clone().into(), &[Output::Embedding]).expect("an embedding").remove(0)
}

fn compare(name: &str, layout: Layout, prefix: &str) {
    let golden = Golden::read("iresnet");
    let (tensors, hash) = tensors(layout);
    assert_eq!(hash, golden.number(&format!("{name}.layout")), "names and shapes of `{name}`");
    let folder = tempfile::tempdir().expect("a folder");
    let teacher = on_cpu(|cx| options(&write(folder.path(), &tensors, prefix)).build(cx)).expect("all tensors fit");
    assert_eq!(teacher.shape(&Output::Embedding, 112).expect("offered"), [layout.embedding]);
    let (name, found) = (format!("{name}.embedding"), embedding(&*teacher, &faces()));
    match layout.depth {
        // Four hundred convolutions in a row: PyTorch's own float32 is at 4.3e-6 from its float64, Winograd's at 3.4e-5.
        200 => golden.compare_within(&name, &found, 2e-4),
        _ => golden.compare(&name, &found),
    }
}

#[test]
fn iresnets_of_insightface() {
    for (depth, embedding, prefix) in
        [(18, 512, ""), (34, 512, "module."), (50, 512, "model.net."), (100, 256, ""), (200, 64, "_orig_mod.")]
    {
        let layout = Layout { naming: Naming::Insightface, depth, embedding };
        compare(&format!("insightface_{depth}"), layout, prefix);
    }
}

#[test]
fn iresnets_of_cvlface() {
    for (depth, embedding, prefix) in
        [(18, 512, "model.net."), (34, 512, ""), (50, 512, "model."), (100, 256, "model.net.")]
    {
        let layout = Layout { naming: Naming::Flat, depth, embedding };
        compare(&format!("flat_{depth}"), layout, prefix);
    }
}

#[test]
fn iresnets_of_face_evolve() {
    for (name, depth, squeeze) in [("evolve_50", 50, false), ("evolve_152", 152, false), ("evolve_se_50", 50, true)] {
        let layout = Layout { naming: Naming::Evolve { squeeze }, depth, embedding: 512 };
        compare(name, layout, "module.backbone.");
    }
}

#[test]
fn a_slope_that_all_channels_share_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut tensors, _) = tensors(Layout { naming: Naming::Insightface, depth: 18, embedding: 8 });
    let slopes: Vec<String> = tensors.keys().filter(|name| name.contains("prelu")).cloned().collect();
    let mut set = |full: bool| {
        for name in &slopes {
            let channels = if full { tensors[&name.replace("prelu.", "conv1.")].dims()[0] } else { 1 };
            let slope = Tensor::full(0.3f32, channels, &Device::Cpu).expect("a slope");
            tensors.insert(name.clone(), slope);
        }
        let teacher = on_cpu(|cx| options(&write(folder.path(), &tensors, "")).build(cx)).expect("fits");
        embedding(&*teacher, &faces())
    };
    let shared = set(false);
    let own = set(true);
    let gap = (shared - own).and_then(|gap| gap.abs()?.max_all()?.to_scalar::<f32>()).expect("a gap");
    assert_eq!(gap, 0.0);
}

#[test]
fn class_weights_give_logits_and_the_contract_is_obeyed() {
    let folder = tempfile::tempdir().expect("a folder");
    let layout = Layout { naming: Naming::Insightface, depth: 18, embedding: 8 };
    let (mut tensors, _) = tensors(layout);
    let plain = on_cpu(|cx| options(&write(folder.path(), &tensors, "")).build(cx)).expect("fits");
    let text = plain.shape(&Output::Logits, 112).expect_err("no head").to_string();
    assert!(text.contains("`class_weights`"), "{text}");
    let expected = embedding(&*plain, &faces());

    let classes = formula::image("classes", (5, 8));
    tensors.insert("state_dict_softmax_fc.weight".into(), classes.to_dtype(DType::F16).expect("half"));
    let path = write(folder.path(), &tensors, "");
    let teacher = on_cpu(|cx| options(&path).build(cx)).expect("fits");
    assert_eq!(teacher.shape(&Output::Logits, 112).expect("offered"), [5]);
    let logits = teacher.features(&faces().into(), &[Output::Logits]).expect("logits").remove(0);
    let half = classes.to_dtype(DType::F16).and_then(|c| c.to_dtype(DType::F32)).expect("rounded");
    let (a, b) = (l2_normalise(&expected).expect("unit"), l2_normalise(&half).expect("unit"));
    let by_hand = b.t().and_then(|b| a.matmul(&b)).and_then(|cosines| cosines * 64.0).expect("logits");
    let gap = (logits - by_hand).and_then(|gap| gap.abs()?.max_all()?.to_scalar::<f32>()).expect("a gap");
    assert!(gap < 1e-4, "{gap}");

    // Blue first, of faces with red and blue exchanged: the same.
    let preprocessing = Preprocessing { colour: Colour::Bgr, ..Preprocessing::default() };
    let bgr = on_cpu(|cx| IresnetTeacher { preprocessing, ..options(&path) }.build(cx)).expect("fits");
    let exchanged = preprocessing.undo(&formula::image("faces", (1, 3, 112, 112))).expect("faces");
    let gap = (embedding(&*bgr, &exchanged) - &expected).and_then(|gap| gap.abs()?.max_all()?.to_scalar::<f32>());
    assert!(gap.expect("a gap") < 1e-5);
}

#[test]
fn a_network_that_is_no_iresnet_or_not_whole_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |tensors: &BTreeMap<String, Tensor>, expected: &str| {
        let path = write(folder.path(), tensors, "model.net.");
        let text = on_cpu(|cx| options(&path).build(cx)).err().expect("must be refused").to_string();
        assert!(text.contains(expected) && text.contains("weights.safetensors"), "{text}");
    };
    let (whole, _) = tensors(Layout { naming: Naming::Flat, depth: 18, embedding: 8 });
    let mut other = whole.clone();
    other.retain(|name, _| !name.starts_with("body.7."));
    refused(&other, "[2, 2, 2, 1] blocks in its stages; expected [2, 2, 2, 2] (iresnet18), [3, 4, 6, 3] (iresnet34)");
    other.retain(|name, _| !name.starts_with("body."));
    refused(
        &other,
        "expected `layer1.0.conv1.weight` (insightface) or `body.0.res_layer.1.weight` (AdaFace, CVLface, face.evoLVe)",
    );
    let mut other = whole.clone();
    let slope = other.remove("body.3.res_layer.3.weight").expect("a slope");
    other.insert("body.3.res_layer.3.wieght".into(), slope);
    refused(&other, "`body.3.res_layer.3.weight` (nearest in the file: `body.3.res_layer.3.wieght`)");
    let mut other = whole.clone();
    let mut values = vec![0.5f32; 64 * 64 * 9];
    values[(5 * 64 + 7) * 9 + 4] = f32::NAN;
    let bad = Tensor::from_vec(values, (64, 64, 3, 3), &Device::Cpu).expect("a tensor");
    other.insert("body.1.res_layer.1.weight".into(), bad);
    refused(&other, "1 with a value that is not finite:\n  `body.1.res_layer.1.weight` at [5, 7, 1, 1] is NaN");
    other = whole.clone();
    other.insert("output_layer.3.weight".into(), Tensor::zeros((0, 25_088), DType::F32, &Device::Cpu).expect("zeros"));
    refused(&other, "an iresnet without `output_layer.3.weight`; the file has");
    other = whole.clone();
    let classes = Tensor::full(f32::INFINITY, (5, 8), &Device::Cpu).expect("classes");
    other.insert("head.weight".into(), classes);
    refused(&other, "`class weights` at [0, 0] is inf");
    let mut other = whole;
    other.insert("output_layer.0.bias".into(), Tensor::zeros(7, DType::F32, &Device::Cpu).expect("zeros"));
    refused(&other, "`output_layer.0.bias` expected [512], found [7]");
}
