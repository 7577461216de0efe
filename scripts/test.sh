#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Set-up, linters, types and tests. usage: scripts/test.sh [--all] [PYTEST OPTIONS]
#   --all   also the tests marked slow
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

marks=(-m "not slow")
if [[ "${1:-}" == --all ]]; then
    marks=()
    shift
fi
bash "$REPO/scripts/setup.sh" --dev
cd "$REPO"
export OMP_NUM_THREADS=1
say "test: ruff"
"$PYTHON" -m ruff check .
say "test: mypy"
"$PYTHON" -m mypy
say "test: shellcheck"
"$VENV/bin/shellcheck" -x scripts/*.sh .ci/run
say "test: pytest"
exec "$PYTHON" -m pytest -q "${marks[@]}" "$@"
