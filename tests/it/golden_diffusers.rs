//! Teachers of kinds `diffusers-unet2d` and `autoencoder-kl` answer as the library diffusers does;
//! `golden/diffusers/ORIGIN.md` says how.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use gdrd_core::face::FaceBatch;
use gdrd_core::recipe::RecipePath;
use gdrd_core::teacher::{Output, Teacher, TeacherConfig};
use gdrd_teachers::diffusers::{DownBlock, Unet2dNetwork};
use gdrd_teachers::{AutoencoderKl, DiffusersUnet2d};
use gdrd_tests::on_cpu;
use tempfile::TempDir;

use crate::golden::{Golden, formula};

/// A folder with the weight file of a case and the `config.json` that diffusers wrote for it.
struct Case {
    name: &'static str,
    tensors: BTreeMap<String, Tensor>,
    folder: TempDir,
    golden: Golden,
}

impl Case {
    fn new(name: &'static str) -> Self {
        let golden = Golden::read("diffusers");
        let start = format!("{name}.shape.");
        let shapes = golden.0.iter().filter_map(|(key, shape)| Some((key.strip_prefix(&start)?, shape)));
        let tensors: BTreeMap<String, Tensor> = shapes
            .map(|(key, shape)| {
                let dims: Vec<usize> =
                    shape.to_vec1::<i64>().expect("a shape").into_iter().map(|dim| dim as usize).collect();
                (key.to_string(), formula::tensor(key, &dims))
            })
            .collect();
        assert!(tensors.len() > 20, "`{name}` has weights");
        let case = Self { name, tensors, folder: tempfile::tempdir().expect("a folder"), golden };
        let bytes = safetensors::serialize(&case.tensors, None).expect("bytes");
        std::fs::write(case.weights().as_path(), bytes).expect("written");
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/diffusers/{name}.json"));
        std::fs::copy(config, case.config()).expect("copied");
        case
    }

    fn weights(&self) -> RecipePath {
        self.folder.path().join("diffusion_pytorch_model.safetensors").into()
    }

    fn config(&self) -> std::path::PathBuf {
        self.folder.path().join("config.json")
    }

    fn unet(&self, input_size: usize, timestep: usize) -> DiffusersUnet2d {
        let (weights, tap) = (self.weights(), "mid_block".to_string());
        DiffusersUnet2d { weights, key: None, config: None, network: None, input_size: Some(input_size), tap, timestep }
    }

    fn autoencoder(&self, input_size: usize) -> AutoencoderKl {
        let (weights, tap) = (self.weights(), "latent".to_string());
        AutoencoderKl { weights, key: None, config: None, network: None, input_size: Some(input_size), tap }
    }

    /// Compares every tap.
    fn compare(&self, config: &dyn TeacherConfig, size: usize) -> Box<dyn Teacher> {
        assert!(config.check().is_empty());
        let teacher = on_cpu(|cx| config.build(cx)).expect("a teacher");
        let start = format!("{}.{size}.", self.name);
        let (taps, golden) = (teacher.maps(), self.golden.0.keys().filter(|key| key.starts_with(&start)));
        assert_eq!(taps.len(), golden.count());
        let outputs: Vec<Output> = taps.iter().map(|tap| Output::Map(tap.clone())).collect();
        let x = formula::image(&format!("{}.{size}", self.name), (2, 3, size, size));
        let faces = FaceBatch::from_tensor(x.affine(0.5, 0.5).expect("faces")).expect("faces");
        let found = teacher.features(&faces.clone().into(), &outputs).expect("features");
        for ((tap, output), found) in taps.iter().zip(&outputs).zip(&found) {
            self.golden.compare(&format!("{start}{tap}"), found);
            assert_eq!(found.dims()[1..], teacher.shape(output, 112).expect("a shape"), "{tap}");
        }
        teacher
    }
}

#[test]
fn denoisers() {
    let case = Case::new("celebahq");
    let teacher = case.compare(&case.unet(9, 421), 9);
    assert_eq!(teacher.card().default_map.as_deref(), Some("mid_block"));
    let case = Case::new("defaults");
    case.compare(&case.unet(9, 0), 9);
    let case = Case::new("bare");
    case.compare(&case.unet(8, 999), 8);
}

#[test]
fn a_network_can_stand_elsewhere_or_in_the_recipe() {
    let case = Case::new("defaults");
    let elsewhere = case.folder.path().join("elsewhere.json");
    std::fs::rename(case.config(), &elsewhere).expect("moved");
    let error = on_cpu(|cx| case.unet(9, 0).build(cx)).err().expect("no options").to_string();
    assert!(error.contains("no `config` in the recipe") && error.contains("config.json"), "{error}");
    let config = DiffusersUnet2d { config: Some(elsewhere.clone().into()), ..case.unet(9, 0) };
    case.compare(&config, 9);
    let network = Unet2dNetwork {
        sample_size: Some(9),
        block_out_channels: vec![32, 64],
        down_block_types: vec![DownBlock::DownBlock2D, DownBlock::AttnDownBlock2D],
        layers_per_block: 1,
        downsample_padding: 1,
        flip_sin_to_cos: true,
        freq_shift: 0,
        attention_head_dim: Some(8),
        add_attention: true,
        norm_num_groups: 16,
        norm_eps: 1e-5,
    };
    let config = DiffusersUnet2d { network: Some(network.clone()), input_size: None, ..case.unet(9, 0) };
    case.compare(&config, 9);
    let network = Unet2dNetwork { norm_num_groups: 7, ..network };
    let problems = DiffusersUnet2d { network: Some(network), config: Some(elsewhere.into()), ..config }.check();
    let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(
        messages,
        ["`norm_num_groups` 7 does not divide 32 channels", "expected `config` or `network`, found both"]
    );
}

#[test]
fn autoencoders() {
    let case = Case::new("stable_diffusion");
    case.compare(&case.autoencoder(9), 9);
    let case = Case::new("no_quant");
    case.compare(&case.autoencoder(9), 9);
}

#[test]
fn weights_of_every_type_and_prefix_are_read_and_whatever_does_not_fit_is_named() {
    let case = Case::new("bare");
    let write = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut tensors = case.tensors.clone();
        change(&mut tensors);
        std::fs::write(case.weights().as_path(), safetensors::serialize(&tensors, None).expect("bytes"))
            .expect("written");
    };
    write(&|tensors| {
        let double = |t: &Tensor| t.to_dtype(DType::F64).expect("doubles");
        *tensors = tensors.iter().map(|(name, t)| (format!("model.{name}"), double(t))).collect();
    });
    case.compare(&case.unet(8, 999), 8);
    let refused = || on_cpu(|cx| case.unet(8, 999).build(cx)).err().expect("must be refused").to_string();
    write(&|tensors| {
        let half = |t: &Tensor| t.to_dtype(DType::F16).expect("halves");
        tensors.values_mut().for_each(|tensor| *tensor = half(tensor));
    });
    on_cpu(|cx| case.unet(8, 999).build(cx)).expect("a teacher");
    write(&|tensors| {
        let moved = tensors.remove("conv_in.weight").expect("a tensor");
        tensors.insert("conv_in.weigth".into(), moved);
        tensors.insert("mid_block.resnets.0.norm1.bias".into(), Tensor::zeros(5, DType::F32, &Device::Cpu).expect("5"));
        tensors.remove("conv_out.bias");
    });
    let text = refused();
    for part in [
        "diffusion_pytorch_model.safetensors`: tensors do not fit",
        "1 missing:\n  `conv_in.weight` (nearest in the file: `conv_in.weigth`)",
        "1 with another shape:\n  `mid_block.resnets.0.norm1.bias` expected [32], found [5]",
        "1 not known to the network:\n  `conv_in.weigth`",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    write(&|_| ());
    let bytes = std::fs::read(case.weights().as_path()).expect("bytes");
    for (content, expected) in [
        (&bytes[..bytes.len() - 9], "not a complete safetensors file"),
        (b"<!doctype html>", "it looks like a web page"),
    ] {
        std::fs::write(case.weights().as_path(), content).expect("written");
        let text = refused();
        assert!(text.contains(expected) && text.contains("diffusion_pytorch_model.safetensors`"), "{text}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::new("celebahq");
    let text = std::fs::read_to_string(case.config()).expect("a config");
    let changed = text
        .replace("\"silu\"", "\"gelu\"")
        .replace("\"DownBlock2D\"", "\"SkipDownBlock2D\"")
        .replace("\"positional\"", "\"fourier\"");
    std::fs::write(case.config(), changed).expect("written");
    let error = on_cpu(|cx| case.unet(9, 0).build(cx)).err().expect("another network").to_string();
    for part in [
        "config.json`: ",
        "`act_fn`: expected \"silu\", found \"gelu\"",
        "`time_embedding_type`: expected \"positional\", found \"fourier\"",
        "unknown variant `SkipDownBlock2D`, expected `DownBlock2D` or `AttnDownBlock2D`",
    ] {
        assert!(error.contains(part), "no `{part}` in {error}");
    }
    std::fs::write(case.config(), text.replacen('{', "{\"twist\": 1,", 1)).expect("written");
    let error = on_cpu(|cx| case.unet(9, 0).build(cx)).err().expect("a new option").to_string();
    assert!(error.contains("unknown field `twist`"), "{error}");
    let padded = text.replace("\"downsample_padding\": ", "\"downsample_padding\": 2");
    std::fs::write(case.config(), padded).expect("written");
    let error = on_cpu(|cx| case.unet(9, 0).build(cx)).err().expect("a number out of its bounds").to_string();
    assert!(error.contains("`downsample_padding`: expected at most 1, found 20"), "{error}");
    std::fs::write(case.config(), &text).expect("written");
    let error = on_cpu(|cx| case.autoencoder(9).build(cx)).err().expect("another class").to_string();
    assert!(error.contains("`_class_name`: expected \"AutoencoderKL\", found \"UNet2DModel\""), "{error}");
    // Two halvings of 3 pixels leave nothing.
    let config = DiffusersUnet2d { input_size: Some(3), ..case.unet(9, 0) };
    let error = on_cpu(|cx| config.build(cx)).err().expect("too small").to_string();
    assert!(error.contains("an input of 3 pixels vanishes before `mid_block`"), "{error}");
    let config = DiffusersUnet2d { tap: "mid_blok".into(), ..case.unet(9, 0) };
    let error = on_cpu(|cx| config.build(cx)).err().expect("no such tap").to_string();
    assert!(error.contains("no feature map `mid_blok`; did you mean `mid_block`?"), "{error}");
    std::fs::write(case.config(), text.replace("\"layers_per_block\": 2", "\"layers_per_block\": 3")).expect("written");
    let error = on_cpu(|cx| case.unet(9, 0).build(cx)).err().expect("more layers").to_string();
    assert!(error.contains("`down_blocks.0.resnets.2.conv1.weight`"), "{error}");
}
