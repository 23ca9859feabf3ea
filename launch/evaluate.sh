#!/usr/bin/env bash
# Teacher and student, before and after, on held-out problems; the report.
#     launch/evaluate.sh --workdir=runs/tiny
# Arguments are passed on; paths count from the repository's root. PRESET (tiny) names the preset.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec python -m launch.main "--config=configs/evaluate.py:${PRESET:-tiny}" "$@"
