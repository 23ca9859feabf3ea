#!/usr/bin/env bash
# Two results on the same problems, with a paired test.
#     launch/compare.sh --workdir=runs/tiny teacher student
# Arguments are passed on; paths count from the repository's root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec python -m launch.compare "$@"
