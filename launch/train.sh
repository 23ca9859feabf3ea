#!/usr/bin/env bash
# All stages of a run: skips what is complete, goes on with what is not.
#     launch/train.sh --workdir=runs/try --config.rl.steps=50
# Arguments are passed on; paths count from the repository's root. PRESET (tiny) names the preset.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec python -m launch.main "--config=configs/rl.py:${PRESET:-tiny}" "$@"
