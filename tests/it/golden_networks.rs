//! The networks answer as the public PyTorch code does; `golden/*/ORIGIN.md` says which code.

use std::collections::BTreeMap;
use std::rc::Rc;

use candle_core::{Device, Tensor};
use gdrd_core::error::Result;
use gdrd_core::nn::Weights;
use gdrd_core::nn::diffusion::{Diffusion, NoiseSchedule};
use gdrd_core::nn::unet::{Tap, Unet, UnetConfig, UnetEncoder};
use gdrd_core::nn::weights::Draw;
use gdrd_core::teacher::{Output, TeacherConfig};
use gdrd_teachers::DiffusionEncoder;
use gdrd_teachers::mobilefacenet::{Layout, MobileFaceNet};
use gdrd_tests::on_cpu;

use crate::golden::{Golden, formula};

/// The network with the formula's weights, given through a file's names as any checkpoint; checks that the public code
/// has the same names and shapes.
fn build<T>(golden: &Golden, name: &str, new: impl Fn(&Weights) -> Result<T>) -> T {
    let (tensors, layout) = weights(&new);
    assert_eq!(layout, golden.number(&format!("{name}.layout")), "names and shapes of `{name}`");
    Weights::read(tensors, &Device::Cpu, |_| false, new).expect("all tensors fit")
}

fn weights<T>(new: &impl Fn(&Weights) -> Result<T>) -> (BTreeMap<String, Tensor>, i64) {
    let draw: Rc<Draw> = Rc::new(|_, count, _| vec![0.0; count]);
    let (_, made) = Weights::create(&Device::Cpu, draw, new).expect("a network");
    formula::tensors(&made)
}

fn small() -> UnetConfig {
    UnetConfig { image_size: 16, model_channels: 32, ..UnetConfig::pgdiff_512() }
}

/// Compares every tap that `values.safetensors` has for the network and the input size.
fn compare_taps(golden: &Golden, name: &str, size: usize, timesteps: &[f32], encoder: &UnetEncoder) {
    let start = format!("{name}.{size}.");
    let names = golden.0.keys().filter_map(|key| key.strip_prefix(&start));
    let taps: Vec<Tap> = names.filter(|key| *key != "out").map(|key| key.parse().expect("a tap")).collect();
    assert!(taps.len() >= 2, "`{name}` has taps at {size}");
    let x = formula::image(&format!("{name}.{size}"), (timesteps.len(), 3, size, size));
    let found = encoder.taps(&x, timesteps, &taps).expect("taps");
    for (tap, found) in taps.iter().zip(&found) {
        golden.compare(&format!("{start}{tap}"), found);
        let (c, h, w) = encoder.tap_shape(*tap, size).expect("a shape");
        assert_eq!(found.dims(), [timesteps.len(), c, h, w], "`{start}{tap}`");
    }
}

fn compare_unet(name: &str, config: &UnetConfig, timesteps: &[f32]) -> (Golden, Unet) {
    let golden = Golden::read("unet");
    let unet = build(&golden, name, |weights| Unet::new(config, weights));
    compare_taps(&golden, name, 8, timesteps, unet.encoder());
    let x = formula::image(&format!("{name}.8"), (timesteps.len(), 3, 8, 8));
    golden.compare(&format!("{name}.8.out"), &unet.forward(&x, timesteps).expect("a prediction"));
    (golden, unet)
}

#[test]
fn unet_with_blocks_per_level_and_strided_convolutions() {
    let config = UnetConfig {
        num_res_blocks: vec![1, 2, 1].into(),
        attention_resolutions: vec![8, 4],
        channel_mult: vec![1, 2, 2],
        num_head_channels: Some(16),
        ..small()
    };
    let (golden, unet) = compare_unet("levels", &config, &[0.0, 421.5]);
    compare_taps(&golden, "levels", 9, &[999.0], unet.encoder());
}

#[test]
fn unet_with_added_time_and_the_new_attention_order() {
    let config = UnetConfig {
        num_res_blocks: 1.into(),
        attention_resolutions: vec![16],
        channel_mult: vec![1, 2],
        num_head_channels: Some(16),
        use_scale_shift_norm: false,
        new_attn_order: true,
        ..small()
    };
    compare_unet("added", &config, &[7.0, 999.0]);
}

#[test]
fn unet_whose_residual_blocks_change_the_size() {
    let config = UnetConfig {
        num_res_blocks: 2.into(),
        attention_resolutions: vec![8, 4],
        channel_mult: vec![1, 2, 3],
        num_head_channels: Some(32),
        resblock_updown: true,
        new_attn_order: true,
        ..small()
    };
    let (golden, unet) = compare_unet("openai", &config, &[3.0, 250.0]);
    compare_taps(&golden, "openai", 9, &[999.0], unet.encoder());
}

#[test]
fn unet_whose_residual_blocks_change_the_size_with_added_time() {
    let config = UnetConfig {
        num_res_blocks: 1.into(),
        attention_resolutions: vec![8],
        channel_mult: vec![1, 1],
        num_heads: 4,
        num_head_channels: None,
        use_scale_shift_norm: false,
        resblock_updown: true,
        ..small()
    };
    compare_unet("openai_added", &config, &[3.0, 250.0]);
}

#[test]
fn pgdiffs_encoder_at_its_full_size() {
    let (golden, config) = (Golden::read("unet"), UnetConfig::pgdiff_512());
    let (tensors, layout) = weights(&|weights: &Weights| Unet::new(&config, weights));
    assert_eq!(layout, golden.number("pgdiff_512.layout"));
    let tensors = tensors.into_iter().map(|(name, tensor)| (format!("module.{name}"), tensor)).collect();
    let encoder = UnetEncoder::read(&config, tensors, &Device::Cpu).expect("all tensors fit");
    compare_taps(&golden, "pgdiff_512", 128, &[0.0], &encoder);
}

/// The most memory that this process has held, in MB.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux system");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") / 1000
}

#[test]
#[ignore = "needs the 639 MB that golden/unet/checkpoint.py writes, at GDRD_PGDIFF_FILE; run it alone"]
fn pgdiffs_published_file() {
    let golden = Golden::read("unet");
    let file = std::env::var("GDRD_PGDIFF_FILE").expect("GDRD_PGDIFF_FILE names the file");
    let network = UnetConfig::pgdiff_512();
    let options = serde_json::json!({ "weights": file, "network": network, "input_size": 128 });
    let options: DiffusionEncoder = serde_json::from_value(options).expect("options");
    let before = peak_memory();
    let teacher = on_cpu(|cx| options.build(cx)).expect("the file fits as it is");
    let held = peak_memory() - before;
    // 60.8 M parameters of the encoder and the middle in float32 are 243 MB; the whole file would be 639.
    assert!((200..330).contains(&held), "{held} MB");
    let x = formula::image("pgdiff_512.128", (1, 3, 128, 128));
    let faces = teacher.card().preprocessing.undo(&x).expect("faces");
    for tap in ["input_blocks.13", "input_blocks.17", "input_blocks.22", "middle_block"] {
        let map = teacher.features(&faces.clone().into(), &[Output::Map(tap.into())]).expect("a map").remove(0);
        golden.compare(&format!("pgdiff_512.128.{tap}"), &map);
    }
}

#[test]
fn noise_levels_and_ddim() {
    let golden = Golden::read("unet");
    for (name, schedule) in [("linear", NoiseSchedule::Linear), ("cosine", NoiseSchedule::Cosine)] {
        let diffusion = Diffusion::new(schedule, 1000).expect("a process");
        let expected = golden.get(&format!("{name}.alphas_cumprod")).to_vec1::<f64>().expect("numbers");
        for (t, expected) in [0, 1, 10, 500, 998, 999].into_iter().zip(expected) {
            let error = (diffusion.alphas_cumprod()[t] / expected - 1.0).abs();
            assert!(error < 1e-11, "{name} at {t}: relative error {error:.1e}");
        }
    }
    let diffusion = Diffusion::new(NoiseSchedule::Linear, 1000).expect("a process");
    let mut timesteps = Vec::new();
    let denoise = |x: &Tensor, t: &[f32]| -> Result<Tensor> {
        timesteps.push(t[0] as i64);
        Ok(Tensor::cat(&[&(x * f64::from(t[0] / 1000.0))?, x], 1)?)
    };
    let sample = diffusion.ddim_sample(&formula::image("ddim", (2, 3, 8, 8)), 8, denoise).expect("a sample");
    golden.compare("ddim.sample", &sample);
    timesteps.reverse();
    assert_eq!(timesteps, golden.get("ddim.timesteps").to_vec1::<i64>().expect("numbers"));
}

#[test]
fn mobilefacenet_in_every_layout() {
    let golden = Golden::read("mobilefacenet");
    for (name, layout) in [
        ("foamliu", Layout::Foamliu),
        ("get_mbf", Layout::Insightface { blocks: [1, 4, 6, 2], scale: 2, embedding: 512 }),
        ("get_mbf_large", Layout::Insightface { blocks: [2, 8, 12, 4], scale: 4, embedding: 256 }),
        ("facexzoo", Layout::FacexZoo { embedding: 512 }),
    ] {
        let (tensors, names) = weights(&|weights: &Weights| MobileFaceNet::new(layout, weights));
        assert_eq!(names, golden.number(&format!("{name}.layout")), "names and shapes of `{name}`");
        let net = MobileFaceNet::read(tensors, &Device::Cpu).expect("all tensors fit");
        assert_eq!(net.layout(), layout);
        let embedding = net.forward(&formula::image("faces", (2, 3, 112, 112))).expect("embeddings");
        golden.compare(&format!("{name}.embedding"), &embedding);
    }
}
