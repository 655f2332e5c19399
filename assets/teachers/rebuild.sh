#!/usr/bin/env bash
# Trains the two small teachers of the quick start anew and puts them here: half an hour on two cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
for teacher in discriminative generative; do
  cargo run --release -- train "assets/recipes/teachers/$teacher.toml" --run-dir "runs/teacher-$teacher" --fresh
  cp "runs/teacher-$teacher/student.safetensors" "assets/teachers/$teacher.safetensors"
done
