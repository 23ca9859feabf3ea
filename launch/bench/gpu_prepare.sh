#!/usr/bin/env bash
# Fetches what gpu_run.sh needs and the GPU's image lacks into .gpu/wheels, which git ignores.
#
#     bash launch/bench/gpu_prepare.sh          # on a Linux x86-64 machine with a package index
#
# The image has Python 3.12 with jax, torch, transformers and peft. flax before 0.12.9 does not
# import with jax from 0.11.1 on, so a later one is carried. Tree and wheels: at most 64 MiB.
set -euo pipefail
cd "$(dirname "$0")/../.."
rm -rf .gpu/wheels
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
    --dest .gpu/wheels 'flax>=0.12.9,<0.13' ml_collections cachetools 'datasets>=4.0' dill multiprocess
ls -l .gpu/wheels
size=$(($(git ls-files -z | xargs -0 cat | wc -c) + $(cat .gpu/wheels/* | wc -c)))
echo "tree and wheels: $((size >> 20)) MiB"
((size <= 64 << 20)) || { echo "wanted: at most 64 MiB" >&2; exit 1; }
