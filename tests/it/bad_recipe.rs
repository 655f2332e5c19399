//! Recipes that are wrong: every mistake named at its place, exit code 2, nothing built.

use gdrd_tests::{Bench, Said, TINY};

use crate::{gdrd, refused};

#[test]
fn another_format_is_refused_at_its_line() {
    let bench = Bench::empty();
    for (format, hint) in [(0, "an older gdrd reads it"), (2, "a newer gdrd reads it")] {
        bench.write("other.toml", TINY.replace("format = 1", &format!("format = {format}")));
        let text = refused(&bench, "other.toml", &[], 2);
        assert!(text.contains(&format!("error: this recipe has format {format}, this gdrd reads format 1")), "{text}");
        assert!(text.contains("other.toml:2:"), "{text}");
        assert!(text.contains(hint), "{text}");
    }
    bench.write("none.toml", TINY.replace("format = 1\n", ""));
    let text = refused(&bench, "none.toml", &[], 2);
    assert!(text.contains("expected `format = 1`"), "{text}");
}

#[test]
fn keys_that_stand_beside_the_options_are_suggested_too() {
    let bench = Bench::with_teachers();
    for (wrong, near) in
        [("stage.generative.optimzer", "optimizer"), ("stage.generative.loss.regression.wieght", "weight")]
    {
        let text = refused(&bench, "tiny.toml", &[&format!("{wrong}=1")], 2);
        let key = wrong.rsplit('.').next().expect("a key");
        assert!(text.contains(&format!("unknown field `{key}`")), "{text}");
        assert!(text.contains(&format!("did you mean `{near}`?")), "{text}");
        assert!(text.contains("known: ") && text.matches("error: ").count() == 1, "{text}");
    }
}

#[test]
fn every_mistake_comes_at_once_with_line_and_nearest_name() {
    let bench = Bench::empty();
    let wrong = TINY
        .replace("identities = 6\nimages_per_identity = 8", "identities = \"six\"\nimages_per_identity = 8")
        .replace("learning_rate = 0.02\noptimizer", "learning_rat = 0.02\noptimizer")
        .replace("kind = \"cross-entropy\"", "kind = \"cross-entrpy\"");
    bench.write("wrong.toml", &wrong);
    let line = |text: &str| 1 + wrong.lines().position(|line| line == text).expect("a line of the recipe");
    let text = refused(&bench, "wrong.toml", &[], 2);
    let place = |at: usize| format!("wrong.toml:{at}:");
    for expected in [
        &place(line("identities = \"six\"")),
        "expected a whole number",
        &place(line("learning_rat = 0.02")),
        "did you mean `learning_rate`?",
        &place(line("kind = \"cross-entrpy\"")),
        "did you mean `cross-entropy`?",
    ] {
        assert!(text.contains(expected), "no `{expected}` in\n{text}");
    }
    assert_eq!(text.matches("error: ").count(), 3, "{text}");
}

#[test]
fn names_that_lead_nowhere_are_named() {
    let bench = Bench::empty();
    bench.write("tiny.toml", TINY);
    let cases = [
        ("stages=[\"generativ\"]", "no stage is called `generativ`", "did you mean `generative`?"),
        ("stage.generative.data=trian", "no dataset is called `trian`", "did you mean `train`?"),
        ("stage.generative.loss.regression.teacher=gen", "no teacher is called `gen`", "discriminative, generative"),
        ("evaluate.verification.data=held", "no dataset is called `held`", "held-out, train"),
        ("student.kind=resnet", "resnet", "resnet-trunk"),
        ("stage.generative.loss.regression.enabled=false", "stage `generative` has no loss", "stage.generative"),
    ];
    for (set, message, hint) in cases {
        let text = refused(&bench, "tiny.toml", &[set], 2);
        assert!(text.contains(message) && text.contains(hint), "{set}:\n{text}");
    }
}

#[test]
fn values_out_of_range_are_named() {
    let bench = Bench::empty();
    bench.write("tiny.toml", TINY);
    let cases = [
        ("stage.generative.batch_size=1", "`batch_size`: expected at least 2, found 1"),
        ("stage.generative.epochs=2", "expected exactly one of `epochs` and `steps`"),
        ("stage.generative.learning_rate=-1", "`learning_rate`: expected above 0, found -1"),
        ("stage.generative.trains=[]", "`trains`: expected `backbone`, `head` or both"),
        ("stage.discriminative.loss.relation.temperature=0", "`temperature`: expected at least 1e-6, found 0"),
        ("degradation.size=2", "`size`: expected at least 4, found 2"),
        ("data.train.identities=0", "`identities`: expected at least 1, found 0"),
        ("teacher.generative.timestep=1000", "`timestep`: expected at most 999, found 1000"),
        ("evaluate.verification.folds=1", "`folds`: expected at least 2, found 1"),
        ("run.checkpoint_steps=0", "`checkpoint_steps`: expected at least 1, found 0"),
        ("run.keep_checkpoints=0", "`keep_checkpoints`: expected at least 1, found 0"),
        ("run.workers=0", "`workers`: expected at least 1, found 0"),
        ("student.strides=[1]", "`blocks`"),
    ];
    for (set, message) in cases {
        let text = refused(&bench, "tiny.toml", &[set], 2);
        assert!(text.contains(message), "{set}:\n{text}");
    }
}

#[test]
fn a_recipe_that_is_not_there_or_not_toml_is_named() {
    let bench = Bench::empty();
    let text = refused(&bench, "gone.toml", &[], 2);
    assert!(text.contains("cannot read the recipe `gone.toml`"), "{text}");
    bench.write("broken.toml", "format = 1\n[data\n");
    let text = refused(&bench, "broken.toml", &[], 2);
    assert!(text.contains("broken.toml:2:"), "{text}");
    bench.write("child.toml", "format = 1\nextends = \"parent.toml\"\n");
    let text = refused(&bench, "child.toml", &[], 2);
    assert!(text.contains("child.toml:2:") && text.contains("parent.toml"), "{text}");
    bench.write("variable.toml", TINY.replace("teachers/generative", "${GDRD_TEST_UNSET}/generative"));
    let text = refused(&bench, "variable.toml", &[], 2);
    assert!(text.contains("the environment variable `GDRD_TEST_UNSET` is not set"), "{text}");
}

#[test]
fn check_says_which_of_several_recipes_are_wrong() {
    let bench = Bench::empty();
    bench.write("good.toml", TINY);
    bench.write("bad.toml", TINY.replace("format = 1", "format = 7"));
    let said = Said::by(gdrd(&bench).args(["check", "good.toml", "bad.toml"])).with_code(2);
    assert_eq!(said.stdout, "good.toml: good\n");
    assert!(said.stderr.contains("bad.toml:2:"), "{said:#?}");
    assert!(said.stderr.ends_with("error: 1 of 2 recipes are wrong\n"), "{said:#?}");
    assert!(!bench.file("runs").exists(), "check builds nothing");
}

#[test]
fn a_precision_that_the_device_does_not_have_is_refused() {
    let bench = Bench::empty();
    bench.write("tiny.toml", TINY);
    let text = refused(&bench, "tiny.toml", &["run.precision=tf32"], 2);
    assert!(text.contains("`run.precision`: expected `float32` on the CPU, found `tf32`"), "{text}");
    let text = refused(&bench, "tiny.toml", &["run.precision=half"], 2);
    assert!(text.contains("float32") && text.contains("bfloat16"), "{text}");
}
