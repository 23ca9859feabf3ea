#!/usr/bin/env bash
# What a first run on one H100 or H200 measures, in at most 540 seconds.
#
#     bash launch/bench/gpu_run.sh [STEP ...]                     # without names: all steps
#     GPU_SECONDS=240 bash launch/bench/gpu_run.sh generate       # in less time
#     GPU_SCALE=smoke bash launch/bench/gpu_run.sh                # a rehearsal on CPU
#
# $OUT (default: a new directory) gets gpu.jsonl, a line for each figure and for each step at once,
# gpu.log and trace.json.gz. A step that fails or takes too long does not stop the next; steps
# come in order of importance, and one for which no time is left says so.
set -u
cd "$(dirname "$0")/../.." || exit 1
total=$((${GPU_SECONDS:-540} - 10)) patience=1 # killing a step and the table take seconds
export OUT=${OUT:-$(mktemp -d)}
mkdir -p "$OUT"
wanted=" $* "
config=--config=configs/bench.py:gpu_run
if [ "${GPU_SCALE:-full}" = smoke ]; then # the CPU may be busy
    config+=_smoke total=3000 patience=20
fi

line() { # NAME RC SECONDS
    printf '{"step": "%s", "rc": %s, "seconds": %s}\n' "$@" | tee -a "$OUT/gpu.jsonl"
}

step() { # NAME LIMIT COMMAND...
    local name=$1 limit=$(($2 * patience)) left=$((total - SECONDS)) begun=$SECONDS
    shift 2
    [[ $wanted == "  " || $wanted == *" $name "* ]] || return
    if ((left < 10)); then
        line "$name" '"no time left"' 0
        return
    fi
    echo "=== $name" >> "$OUT/gpu.log"
    timeout -k 5 $((limit < left ? limit : left)) "$@" >> "$OUT/gpu.log" 2>&1
    line "$name" $? $((SECONDS - begun))
}

measure() { # NAME LIMIT STEP [XLA_FLAG]
    (($# < 4)) || local -x XLA_FLAGS="${XLA_FLAGS:+$XLA_FLAGS }$4"
    step "$1" "$2" python3 -m launch.bench.gpu "$config" --step="$3" --arm="$1"
}

site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
export PYTHONPATH="$site:$PWD:${PYTHONPATH:-}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-.92}
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$site/cache}
if [ "${GPU_SCALE:-full}" != smoke ] && compgen -G '.gpu/wheels/*.whl' > /dev/null; then
    [[ $wanted == "  " ]] || wanted+="install "
    step install 60 python3 -m pip install --quiet --no-index --no-deps --target "$site" .gpu/wheels/*.whl
fi

measure env 40 env
measure parity 60 parity
measure forward 80 forward
measure generate 110 generate
measure update 130 update
measure transformers 90 transformers
measure grpo 90 grpo
# A flag is part of a program's key in the cache: each of these compiles the segment again.
measure segment 40 segment
measure segment_no_graphs 30 segment --xla_gpu_enable_command_buffer=
measure segment_while_graph 30 segment --xla_gpu_enable_command_buffer=+WHILE
measure segment_no_triton 30 segment --xla_gpu_enable_triton_gemm=false
measure segment_odd_vocabulary 30 segment_odd_vocabulary
measure attention 60 attention
measure profile 40 profile
step rl 120 python3 -m launch.main --config=configs/rl.py:smoke --workdir="$site/rl"

python3 -m launch.bench.gpu.table "$OUT/gpu.jsonl" | tee -a "$OUT/gpu.log"
echo "$SECONDS s; results: $OUT"
