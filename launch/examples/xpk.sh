#!/usr/bin/env bash
# The main job on a TPU slice of a GKE cluster that xpk made: CLUSTER=... IMAGE=... launch/examples/xpk.sh
# IMAGE is a container with this repository in /work and the extra tpu. On TPU pods --distributed
# finds the other hosts by itself.
set -euo pipefail

xpk workload create --cluster="$CLUSTER" --workload="${NAME:-distill-jax}" \
    --tpu-type="${TPU:-v5litepod-16}" --docker-image="$IMAGE" --max-restarts=3 \
    --command="cd /work && python -m launch.main --config=configs/rl.py:qwen_7b --workdir=/runs/qwen_7b --distributed"
