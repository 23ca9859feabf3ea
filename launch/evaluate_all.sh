#!/usr/bin/env bash
# As evaluate.sh, and every checkpoint of stage rl too.
#     launch/evaluate_all.sh --workdir=runs/tiny
# Arguments are passed on; paths count from the repository's root. PRESET (tiny) names the preset.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec python -m launch.main "--config=configs/evaluate.py:${PRESET:-tiny}" --config.evaluate.checkpoints=all "$@"
