#!/usr/bin/env bash
# Answers of a model as JSONL; stopped, it goes on.
#     launch/export.sh --workdir=runs/tiny --model=teacher
# Arguments are passed on; paths count from the repository's root. PRESET (tiny) names the preset.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec python -m launch.export_answers "--config=configs/rl.py:${PRESET:-tiny}" "$@"
