//! Every loss in a stage of its own: it runs, and what it minimises goes down.

use gdrd_core::experiment::Experiment;
use gdrd_tests::{Bench, GENERATIVE, losses};

/// A recipe with the parts of `tiny.toml` and one stage with these losses.
fn alone(bench: &Bench, name: &str, stage: &str) -> Experiment {
    let text = format!(
        "format = 1\nextends = \"tiny.toml\"\nstages = [\"alone\"]\n\n[stage.alone]\nsteps = 24\nbatch_size = 12\n\
         learning_rate = 0.01\noptimizer.kind = \"adamw\"\n{stage}\n[evaluate.verification]\nenabled = false\n"
    );
    let path = bench.write(&format!("{name}.toml"), text);
    bench.recipe(&path, &[])
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The means of the first and the last quarter.
fn ends(values: &[f64]) -> (f64, f64) {
    assert_eq!(values.len(), 24);
    (mean(&values[..6]), mean(&values[18..]))
}

#[test]
fn every_loss_goes_down() {
    let bench = Bench::with_teachers();
    let cases = [
        ("cross-entropy", "loss.term.kind = \"cross-entropy\"\nloss.term.classes.label_smoothing = 0.1"),
        ("arcface", "loss.term.kind = \"arcface\"\nloss.term.scale = 16.0\nloss.term.margin = 0.2"),
        ("cosface", "loss.term.kind = \"cosface\"\nloss.term.scale = 16.0\nloss.term.margin = 0.2"),
        ("feature-regression", "loss.term.kind = \"feature-regression\"\nloss.term.teacher = \"generative\""),
        (
            "rare",
            "loss.term.kind = \"cross-entropy\"\nloss.term.classes = { min_images = 9, rare_weight = 0.5, sample = 0.7 }",
        ),
        ("sample", "loss.term.kind = \"arcface\"\nloss.term.scale = 16.0\nloss.term.classes.sample = 0.5"),
        ("embedding-regression", "loss.term.kind = \"embedding-regression\""),
        (
            "other-photo",
            "images_per_person = 4\n\
             loss.term = { kind = \"embedding-regression\", other_photo = 0.5, queue = 30, distance = \"smooth-l1\", beta = 0.1 }",
        ),
        ("relation-similarity", "loss.term.kind = \"relation-similarity\""),
        ("queue", "loss.term = { kind = \"relation-similarity\", distance = \"smooth-l1\", queue = 20 }"),
        ("relational-contrastive", "loss.term = { kind = \"relational-contrastive\", hidden = 16, relation = 8 }"),
        (
            "critic",
            "loss.term = { kind = \"relational-contrastive\", hidden = 16, relation = 8, negatives = \"any-pair\", \
             unit_length = false, centre_scores = true, connector = true, queue = 20, partners = 4 }",
        ),
        (
            "logit-distillation",
            "loss.identity.kind = \"cross-entropy\"\nloss.term.kind = \"logit-distillation\"\nloss.term.weight = 2.0",
        ),
    ];
    for (name, stage) in cases {
        let (_, events) = bench.train(&alone(&bench, name, stage), name);
        let (first, last) = ends(&losses(&events, Some("term")));
        assert!(last < first, "{name}: {first} at first, {last} at last");
        assert!(losses(&events, None).iter().all(|loss| loss.is_finite()), "{name}");
    }
}

#[test]
fn every_compared_loss_goes_down() {
    let bench = Bench::with_teachers();
    let margin = "scale = 16.0, margin = 0.2";
    let cases = [
        ("triplet", "mining = \"batch-hard\", distance = \"euclidean\", margin = 0.5"),
        ("siamese", "margin = 1.0"),
        ("octuplet", "margin = 0.5"),
        // A lambda that falls would raise the loss.
        ("sphereface", "lambda_start = 5.0"),
        ("magface", "scale = 16.0, lambda = 1.0"),
        ("adaface", margin),
        ("curricularface", margin),
        ("rival-penalised", margin),
        ("attention-transfer", "teacher = \"generative\""),
        ("similarity-preserving", "teacher = \"generative\""),
        ("map-similarity", "teacher = \"generative\", relation = 0.2"),
        ("wavelet-similarity", "teacher = \"generative\""),
        ("pkt", "teacher = \"discriminative\""),
        ("rkd", "angle = 2.0, distance = 1.0"),
        // A queue that fills has more and more to be told apart.
        ("crd", "queue = 0, width = 8"),
        ("hybrid-order", "quadruples = 64"),
        ("selective-regression", "share = 0.5"),
        // A penalty that adapts grows with what is learnt.
        ("classifier-reuse", "scale = 16.0, margin = 0.2, adaptive = false"),
        ("mk-mmd", "kernels = 5"),
    ];
    for (kind, options) in cases {
        let stage = format!("images_per_person = 4\nloss.term = {{ kind = \"{kind}\", {options} }}");
        let (_, events) = bench.train(&alone(&bench, kind, &stage), kind);
        let (first, last) = ends(&losses(&events, Some("term")));
        assert!(last < first, "{kind}: {first} at first, {last} at last");
    }
}

#[test]
fn losses_may_look_beyond_the_stages_view_and_the_backbones_map() {
    let bench = Bench::with_teachers();
    let varied = "[view.varied]\nkind = \"random-downscale\"\nsizes = [8, 12]\nplain = 0.0\n";
    let identity = "loss.identity.kind = \"cross-entropy\"\n";
    let network = "network = { kind = \"resnet-trunk\", channels = [4], blocks = [1], strides = [4], embedding = 6 }";
    let cases = [
        ("siamese", format!("loss.term = {{ kind = \"siamese\", streams = [\"varied\"] }}\n{varied}")),
        ("octuplet", format!("loss.term = {{ kind = \"octuplet\", high = \"varied\" }}\n{varied}")),
        ("evolving", format!("{identity}loss.term = {{ kind = \"evolving-teacher\", {network} }}\n")),
        (
            "inner-map",
            "loss.term = { kind = \"map-similarity\", teacher = \"generative\", student_map = \"stem\" }\n".into(),
        ),
        (
            "inner-attention",
            "loss.term = { kind = \"attention-transfer\", teacher = \"generative\", student_map = \"stage0\" }\n"
                .into(),
        ),
    ];
    for (name, stage) in cases {
        let (run, events) = bench.train(&alone(&bench, name, &format!("images_per_person = 4\n{stage}")), name);
        let (first, last) = ends(&losses(&events, Some("term")));
        assert!(last < first, "{name}: {first} at first, {last} at last");
        // What is trained along is no part of the student.
        let bytes = std::fs::read(run.student()).expect("a student");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
        let names = file.names();
        assert!(names.iter().all(|name| name.starts_with("backbone.") || name.starts_with("head.")), "{names:?}");
    }
}

/// With the stage's own view as the other one, the student's embeddings are the same: four triplet losses are four times one.
#[test]
fn the_student_embeds_other_views_as_its_own() {
    let bench = Bench::with_teachers();
    let first = |name: &str, options: &str| {
        let stage =
            format!("images_per_person = 4\nloss.term = {{ margin = 0.5, distance = \"euclidean\", {options} }}\n");
        let (_, events) = bench.train(&alone(&bench, name, &stage), name);
        losses(&events, Some("term"))[0]
    };
    let one = first("one", "kind = \"triplet\", mining = \"batch-hard\"");
    let four = first("four", "kind = \"octuplet\", high = \"low\"");
    assert!(one > 0.0 && (four - 4.0 * one).abs() < 1e-5 * four, "{four} is not four times {one}");
}

#[test]
fn other_views_and_maps_that_do_not_fit_are_refused_before_the_first_step() {
    let bench = Bench::with_teachers();
    let refused = |stage: &str| {
        let (error, steps) = bench.fails(&alone(&bench, "refused", stage), "refused");
        assert_eq!(steps, 0, "{error}");
        error.to_string()
    };
    let large = refused("loss.term = { kind = \"octuplet\", high = \"high\" }\n");
    assert!(large.contains("the view `high` has 32 pixels; expected 16, as the student's input"), "{large}");
    let map = |name: &str| {
        format!("loss.term = {{ kind = \"map-similarity\", teacher = \"generative\", student_map = \"{name}\" }}\n")
    };
    let unknown = refused(&map("stagE0"));
    assert!(unknown.contains("stem") && unknown.contains("stage0") && unknown.contains("backbone"), "{unknown}");
    let network = |network: &str| {
        let classifier = "loss.identity.kind = \"cross-entropy\"\n";
        refused(&format!("{classifier}loss.term = {{ kind = \"evolving-teacher\", network = {network} }}\n"))
    };
    assert!(network("{ channels = [4] }").contains("expected `kind`, the kind of a student, found none"));
    assert!(network("{ kind = \"resnet\" }").contains("no student is called `resnet`"));
    assert!(network("{ kind = \"resnet-trunk\", channels = [] }").contains("channels"));
}

#[test]
fn denoising_goes_down() {
    let bench = Bench::empty();
    let path = bench.write("generative.toml", GENERATIVE);
    let recipe = bench.recipe(&path, &["stage.denoising.steps=24", "stage.denoising.learning_rate=5e-3"]);
    let (_, events) = bench.train(&recipe, "denoising");
    let (first, last) = ends(&losses(&events, None));
    assert!(last < first, "{first} at first, {last} at last");
}

#[test]
fn class_weights_of_a_file_serve_as_teacher_logits() {
    let bench = Bench::with_teachers();
    // Six identities, and the eight values of the teacher's embedding.
    let values: Vec<f32> = (0..48).map(|i| ((i * 7 % 11) as f32) - 5.0).collect();
    let weight = candle_core::Tensor::from_vec(values, (6, 8), &candle_core::Device::Cpu).expect("a tensor");
    bench.write("classes.safetensors", safetensors::serialize([("weight", &weight)], None).expect("bytes"));
    let stage = "loss.identity.kind = \"cross-entropy\"\nloss.term.kind = \"logit-distillation\"\n\
                 loss.term.teacher_logits = \"file\"\nloss.term.file = \"classes.safetensors\"";
    let (_, events) = bench.train(&alone(&bench, "file", stage), "file");
    let (first, last) = ends(&losses(&events, Some("term")));
    assert!(last < first, "{first} at first, {last} at last");
}

#[test]
fn the_sum_is_the_weighted_sum_of_the_terms() {
    let bench = Bench::with_teachers();
    let (_, events) = bench.train(&bench.tiny(&[]), "sum");
    let term = |name| losses(&events, Some(name));
    let (identity, logits, relation) = (term("identity"), term("logits"), term("relation"));
    let sums = &losses(&events, None)[8..];
    for (step, sum) in sums.iter().enumerate() {
        let expected = identity[step] + 0.25 * logits[step] + 4.0 * relation[step];
        assert!((sum - expected).abs() < 1e-9, "step {step}: {sum}, expected {expected}");
    }
}

fn rates(bench: &Bench, name: &str, stage: &str) -> Vec<f64> {
    let (run, _) = bench.train(&alone(bench, name, &format!("loss.term.kind = \"cross-entropy\"\n{stage}")), name);
    let metrics = std::fs::read_to_string(run.path().join("metrics.jsonl")).expect("metrics");
    let rate = |line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["rate"].as_f64().expect("a rate");
    let rates: Vec<f64> = metrics.lines().map(rate).collect();
    assert_eq!(rates.len(), 24);
    rates
}

#[test]
fn the_rate_warms_up_and_follows_its_schedule() {
    let bench = Bench::with_teachers();
    let cosine = rates(&bench, "cosine", "warmup_steps = 4\nschedule.kind = \"cosine\"");
    assert!(cosine[..4].is_sorted() && cosine[0] > 0.0 && cosine[0] < 0.004, "warm-up: {cosine:?}");
    assert!(cosine[4..].is_sorted_by(|a, b| a >= b) && cosine[23] < 0.001, "{cosine:?}");
    let step = rates(&bench, "step", "schedule = { kind = \"step\", milestones = [0.5] }");
    assert!(step[..12].iter().all(|rate| *rate == 0.01), "{step:?}");
    assert!(step[12..].iter().all(|rate| (rate - 0.001).abs() < 1e-12), "{step:?}");
    assert!(rates(&bench, "constant", "schedule.kind = \"constant\"").iter().all(|rate| *rate == 0.01));
}

#[test]
fn a_clipped_step_is_no_longer_than_the_recipe_says() {
    let bench = Bench::with_teachers();
    let stage = "loss.term.kind = \"cross-entropy\"\noptimizer.weight_decay = 0.0\n";
    let plain = |name: &str, clip: &str| {
        let recipe = alone(&bench, name, &format!("{stage}{clip}"));
        let (_, events) = bench.train(&recipe, name);
        losses(&events, None)
    };
    let free = plain("free", "");
    assert_eq!(free, plain("loose", "clip_norm = 1e9"));
    assert_ne!(free, plain("tight", "clip_norm = 1e-9"), "AdamW feels a length below its epsilon");
}
