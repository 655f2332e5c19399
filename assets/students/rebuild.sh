#!/usr/bin/env bash
# Trains the quick start's student anew and puts it here, in float16: some minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
recipe=assets/recipes/quickstart.toml
cargo run --release -- train "$recipe" --run-dir runs/quickstart-student --fresh
cargo run --release -- calibrate runs/quickstart-student/student.safetensors "$recipe" --weights float16 \
  --frames 2,4,8 --out assets/students/quickstart.safetensors
