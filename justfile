# Short names for the commands that the documentation and CI use.

# Everything that CI checks.
ci:
    bash .ci/run

# Format, lints and the suite.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --workspace

# The JSON schema of recipes, after a change of any plug-in's options.
schema:
    cargo run --release -- schema > assets/schema/recipe.schema.json

# The small teachers of the quick start, from their recipes.
teachers:
    bash assets/teachers/rebuild.sh

# The five ablations of the paper's Fig. 3 and its literal reading on drawn faces, three seeds each.
ablation:
    cargo run --release -- ablate assets/recipes/ablation/wo-dist.toml assets/recipes/ablation/sr.toml assets/recipes/ablation/gen.toml assets/recipes/ablation/dis.toml assets/recipes/ablation/literal.toml assets/recipes/ablation/gen+dis.toml --seeds 7,8,9 --against GEN+DIS

# gdrd against candle's own layers, PyTorch and ONNX Runtime.
compare *options:
    tests/bench/compare {{options}}
