//! A recipe from its data to its report, in this process.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use gdrd_core::nn::weights::read_safetensors;
use gdrd_core::observe::{Event, Silent};
use gdrd_core::run::{Measuring, RunFolder, measure};
use gdrd_student::FaceEncoder;
use gdrd_tests::{Bench, losses, on_cpu};

type Tensors = BTreeMap<String, Tensor>;

/// The bits of every tensor of a part, by name without the prefix `scope`.
fn bits(tensors: &Tensors, scope: &str, part: &str) -> BTreeMap<String, Vec<u32>> {
    let prefix = format!("{scope}{part}");
    let of_part = tensors.iter().filter(|(name, _)| name.starts_with(&prefix));
    let bits = of_part.map(|(name, tensor)| {
        let values = tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()?.to_vec1::<f32>()).expect("values");
        (name[scope.len()..].to_string(), values.into_iter().map(f32::to_bits).collect())
    });
    bits.collect()
}

fn checkpoint(run: &RunFolder, step: u64) -> Tensors {
    let path = run.path().join(format!("checkpoints/step-{step}/state.safetensors"));
    read_safetensors(&path).expect("a checkpoint")
}

/// A word for each event, without repetitions side by side.
fn story(events: &[Event]) -> Vec<String> {
    let mut words: Vec<String> = events
        .iter()
        .map(|event| match event {
            Event::RunStarted { .. } => "run".to_string(),
            Event::Working { what, .. } => what.clone(),
            Event::StageStarted { stage, .. } => format!("stage {stage}"),
            Event::StepDone { stage, .. } => format!("steps of {stage}"),
            Event::CheckpointWritten { .. } => "checkpoint".to_string(),
            Event::ProtocolDone { embedder, .. } => format!("score of {embedder}"),
            Event::RunEnded { .. } => "end".to_string(),
            other => format!("{other:?}"),
        })
        .collect();
    words.dedup();
    words
}

#[test]
fn a_run_leaves_everything_that_it_promises() {
    let bench = Bench::with_teachers();
    let recipe = bench.tiny(&[]);
    let (run, events) = bench.train(&recipe, "whole");
    for file in
        ["recipe.resolved.toml", "lock.json", "samples.png", "metrics.jsonl", "student.safetensors", "report.md"]
    {
        assert!(run.path().join(file).is_file(), "{file}");
    }
    assert!(run.path().join("evaluation/verification.json").is_file());
    assert!(run.is_finished());
    let metrics = std::fs::read_to_string(run.path().join("metrics.jsonl")).expect("metrics");
    assert_eq!(metrics.lines().count(), 16);
    for word in ["identity", "logits", "relation", "identity.accuracy", "rate", "images_per_second"] {
        assert!(metrics.lines().last().expect("a line").contains(&format!("\"{word}\":")), "{word} in {metrics}");
    }
    let report = std::fs::read_to_string(run.path().join("report.md")).expect("report");
    for embedder in
        ["student at 16x16", "teacher `discriminative` at 32x32", "teacher `discriminative` on upsampled 16x16 faces"]
    {
        assert!(report.contains(embedder), "{embedder} in\n{report}");
    }
    for picture in report.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(name, _)| name) {
        assert!(run.path().join(picture).is_file(), "the report shows `{picture}`");
    }
    let told = story(&events);
    let place = |word: &str| told.iter().position(|t| t == word).unwrap_or_else(|| panic!("no `{word}` in {told:#?}"));
    let order = [
        "run",
        "reading dataset `train`",
        "stage generative",
        "steps of generative",
        "stage discriminative",
        "steps of discriminative",
        "score of student at 16x16",
        "end",
    ];
    let places = order.map(place);
    assert!(places.is_sorted(), "{places:?} in {told:#?}");
    assert_eq!((told.first().map(String::as_str), told.last().map(String::as_str)), (Some("run"), Some("end")));
}

#[test]
fn teachers_see_a_dataset_once_for_all_runs() {
    let bench = Bench::with_teachers();
    let computed = |events: &[Event]| {
        let what = events.iter().filter_map(|event| match event {
            Event::Working { what, .. } if what.starts_with("features of teacher") => Some(what.clone()),
            _ => None,
        });
        let mut what: Vec<String> = what.collect();
        what.sort();
        what.dedup();
        what
    };
    let (_, first) = bench.train(&bench.tiny(&[]), "first");
    assert_eq!(
        computed(&first),
        ["features of teacher `discriminative`", "features of teacher `generative`"],
        "both sides of a face in one pass"
    );
    // Another seed is another run with the same teachers and faces.
    let (_, second) = bench.train(&bench.tiny(&["run.seed=8"]), "second");
    assert_eq!(computed(&second), Vec::<String>::new());
    let measured = |events: &[Event]| {
        let of_teachers =
            |event: &&Event| matches!(event, Event::Working { what, .. } if what.starts_with("verification: teacher"));
        events.iter().filter(of_teachers).count()
    };
    assert!(measured(&first) > 0);
    assert_eq!(measured(&second), 0, "what teachers score is kept too");
}

#[test]
fn stored_features_and_live_teachers_train_alike() {
    let bench = Bench::with_teachers();
    let live = ["stage.generative.store_features=false", "stage.discriminative.store_features=false"];
    let stored = losses(&bench.train(&bench.tiny(&[]), "stored").1, None);
    let live = losses(&bench.train(&bench.tiny(&live), "live").1, None);
    for (step, (stored, live)) in stored.iter().zip(&live).enumerate() {
        // Stored features have half precision.
        assert!((stored - live).abs() < 5e-3 * live.abs().max(1.0), "step {step}: {stored} and {live}");
    }
}

#[test]
fn the_second_stage_leaves_the_backbone_as_it_is() {
    let bench = Bench::with_teachers();
    let recipe = bench.tiny(&["run.checkpoint_steps=1", "run.keep_checkpoints=99"]);
    let (run, _) = bench.train(&recipe, "frozen");
    let student = read_safetensors(&run.student()).expect("a student");
    let (start, between) = (checkpoint(&run, 1), checkpoint(&run, 8));
    let part = |tensors: &Tensors, part| bits(tensors, "variable.student.", part);
    assert_eq!(part(&between, "backbone."), bits(&student, "", "backbone."));
    let statistics = part(&between, "backbone.").keys().filter(|name| name.contains("running")).count();
    assert!(statistics > 0, "running statistics are among what was compared");
    assert_ne!(part(&start, "backbone."), part(&between, "backbone."), "the first stage trains the backbone");
    assert_eq!(part(&start, "head."), part(&between, "head."), "and not the head");
    let (before, after) = (part(&between, "head."), bits(&student, "", "head."));
    assert!(before.iter().all(|(name, values)| after[name] != *values), "the second stage trains the whole head");
}

#[test]
fn the_student_file_embeds_as_the_run_did() {
    let bench = Bench::with_teachers();
    let recipe = bench.tiny(&[]);
    let (run, _) = bench.train(&recipe, "embeds");
    let encoder = FaceEncoder::open(run.student()).expect("a student file");
    assert_eq!(encoder.header().recipe, recipe.digest());
    assert_eq!(encoder.header().teachers.keys().collect::<Vec<_>>(), ["discriminative", "generative"]);
    let again = measure(&recipe, &Measuring::Embedder(&encoder), &bench.place("embeds"), &Silent).expect("scores");
    let in_run = &run.results().expect("results")["verification"][0];
    assert_eq!(again["verification"][0], *in_run);
    assert_eq!(in_run.embedder, "student at 16x16");
    assert_eq!(in_run.outcome.items.len(), 60);
}

/// One thread has the threads that stay awake, the others do without.
#[test]
fn threads_that_share_an_encoder_get_what_one_gets() {
    let bench = Bench::with_teachers();
    let (run, _) = bench.train(&bench.tiny(&[]), "shared");
    let encoder = FaceEncoder::open(run.student()).expect("a student file");
    let held_out = on_cpu(|cx| bench.tiny(&[]).data["held-out"].config.build(cx)).expect("faces");
    let faces: Vec<_> = (0..20).map(|at| held_out.face(at).expect("a face")).collect();
    let alone = encoder.embed(&faces).expect("embeddings");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (at, face) in faces.iter().enumerate() {
                    let one = encoder.embed(std::slice::from_ref(face)).expect("an embedding");
                    let cosine: f32 =
                        one.row(0).expect("a row").iter().zip(alone.row(at).expect("a row")).map(|(a, b)| a * b).sum();
                    assert!(cosine > 0.99999, "face {at}: {cosine}");
                }
                assert_eq!(encoder.embed(&faces).expect("embeddings"), alone);
            });
        }
    });
}

#[test]
fn a_student_in_half_precision_is_half_as_large_and_nearly_the_same() {
    let bench = Bench::with_teachers();
    let (single, _) = bench.train(&bench.tiny(&[]), "single");
    let (half, _) = bench.train(&bench.tiny(&["run.half_precision=true"]), "half");
    let size = |run: &RunFolder| std::fs::metadata(run.student()).expect("a file").len();
    assert!(size(&half) < size(&single) * 3 / 4, "{} and {}", size(&half), size(&single));
    let face = on_cpu(|cx| bench.tiny(&[]).data["held-out"].config.build(cx)).and_then(|data| data.face(0));
    let face = face.expect("a face");
    let embed = |run: &RunFolder| {
        let encoder = FaceEncoder::open(run.student()).expect("a student file");
        encoder.embed(std::slice::from_ref(&face)).expect("an embedding").values().to_vec()
    };
    let cosine: f32 = embed(&single).iter().zip(embed(&half)).map(|(a, b)| a * b).sum();
    assert!(cosine > 0.999, "{cosine}");
}

#[test]
fn the_resolved_recipe_is_the_same_run() {
    let bench = Bench::with_teachers();
    let (first, _) = bench.train(&bench.tiny(&["run.seed=11"]), "first");
    let resolved = bench.recipe(&first.recipe(), &[]);
    assert_eq!(resolved.name, "tiny");
    let (second, _) = bench.train(&resolved, "second");
    let bytes = |path| std::fs::read(path).expect("a file");
    assert_eq!(bytes(first.recipe()), bytes(second.recipe()));
    assert!(bytes(first.student()) == bytes(second.student()), "the students differ");
    let (other, _) = bench.train(&bench.tiny(&["run.seed=12"]), "other");
    assert!(bytes(first.student()) != bytes(other.student()), "the seed does nothing");
    let with_workers = bench.tiny(&["run.seed=11", "run.workers=3"]);
    let (workers, _) = bench.train(&with_workers, "workers");
    let tensors = |run: &RunFolder| bits(&read_safetensors(&run.student()).expect("a student"), "", "");
    assert_eq!(tensors(&first), tensors(&workers), "the number of threads changes nothing");
}

#[test]
fn two_half_batches_are_one_batch() {
    let bench = Bench::with_teachers();
    let head = ["stages=[\"discriminative\"]", "stage.discriminative.loss.relation.enabled=false"];
    // Six whole batches of eight are an epoch, and so are twelve of four; batch statistics play no part in a head
    // without normalisation.
    let short = "stage.discriminative.steps=6";
    let whole = [&head[..], &[short]].concat();
    let halves =
        [&head[..], &[short, "stage.discriminative.batch_size=4", "stage.discriminative.accumulate=2"]].concat();
    let whole = losses(&bench.train(&bench.tiny(&whole), "whole").1, None);
    let halves = losses(&bench.train(&bench.tiny(&halves), "halves").1, None);
    assert_eq!(whole.len(), 6);
    for (step, (whole, halves)) in whole.iter().zip(&halves).enumerate() {
        assert!((whole - halves).abs() < 1e-4 * whole, "step {step}: {whole} and {halves}");
    }
}

#[test]
fn a_head_on_the_generative_encoder_is_a_student_too() {
    let bench = Bench::with_teachers();
    // The ablation SR: the encoder stands in the backbone's place, and its weights go into the student file.
    let text = "format = 1\nextends = \"tiny.toml\"\nstages = [\"discriminative\"]\n[student]\n\
                kind = \"diffusion-trunk\"\nweights = \"teachers/generative.safetensors\"\nencoder_size = 16\n\
                embedding = 12\nnetwork = { image_size = 16, model_channels = 8, channel_mult = [1, 2], \
                num_res_blocks = 1, norm_groups = 4 }\n[stage.discriminative]\noptimizer.kind = \"sgd\"\n";
    let path = bench.write("sr.toml", text);
    let (run, _) = bench.train(&bench.recipe(&path, &[]), "sr");
    let student = read_safetensors(&run.student()).expect("a student");
    let teacher = read_safetensors(&bench.file("teachers/generative.safetensors")).expect("a teacher");
    let (backbone, encoder) = (bits(&student, "backbone.", ""), bits(&teacher, "", ""));
    assert!(backbone.len() > 10 && backbone.len() < encoder.len(), "the decoder is left out");
    assert!(backbone.iter().all(|(name, values)| encoder[name] == *values), "the encoder is as it was");
    std::fs::remove_dir_all(bench.file("teachers")).expect("the teachers go");
    assert_eq!(FaceEncoder::open(run.student()).expect("it needs no other file").header().kind, "diffusion-trunk");
}
