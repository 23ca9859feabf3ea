#!/usr/bin/env bash
# The main job on a TPU slice of a GKE cluster that xpk made: CLUSTER=... IMAGE=... launch/examples/xpk.sh
# IMAGE is a container with this repository in /work and the extra tpu. On TPU pods --distributed
# finds the other hosts by itself. By the forecast qwen_7b needs 21 GB a chip on 16: more than v5e has.
# Mount shared storage at /runs: without it checkpoints are lost with the pod.
set -euo pipefail

xpk workload create --cluster="$CLUSTER" --workload="${NAME:-distill-jax}" \
    --tpu-type="${TPU:-v6e-16}" --docker-image="$IMAGE" --max-restarts=3 \
    --command="cd /work && python -m launch.main --config=configs/rl.py:qwen_7b --workdir=/runs/qwen_7b --distributed"
