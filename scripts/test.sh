#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Set-up, linters, types and tests (bats, pytest).
#
# usage: scripts/test.sh [--fast | --all] [PYTEST OPTIONS]
#   --fast  linters, types, and of pytest's tests those that turn out to be quick: about a minute
#   --all   also the tests that are slow, more than a minute each
# Without either: about twelve minutes. pytest runs in two processes; -n 0 keeps it to one, as --pdb needs.
#
# example: bash scripts/test.sh -x
# exit code: 0 all passed; else that of what failed
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
    help_of "${BASH_SOURCE[0]}"
    exit 0
fi
fast=no marks=(-m "not slow") tags=(--filter-tags '!slow')
case "${1:-}" in
    --fast) fast=yes marks+=(-p tests.fast -rfE) && shift ;;
    --all) marks=() tags=() && shift ;;
esac
bash "$REPO/scripts/setup.sh" --dev
cd "$REPO"
export OMP_NUM_THREADS=1
say "test: ruff"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
say "test: mypy"
"$PYTHON" -m mypy
say "test: shellcheck"
"$VENV/bin/shellcheck" -x scripts/*.sh .ci/run tests/scripts/*.bats tests/scripts/*.bash
# A failure here is kept until pytest has had its turn. pytest's line is the last one; it says what bats found above it.
bats=0
if [[ "$fast" == yes ]]; then
    RECIPE_BATS_RESULT="left out"
else
    say "test: bats"
    "$VENV/bin/bats" --tap --print-output-on-failure "${tags[@]}" tests/scripts | tee "$VENV/logs/bats.log" || bats=$?
    RECIPE_BATS_RESULT="$(grep -c '^ok ' "$VENV/logs/bats.log" || true) passed, $(grep -c '^not ok ' "$VENV/logs/bats.log" || true) failed"
fi
export RECIPE_BATS_RESULT
say "test: pytest"
# A file stays in one process, for its set-up's sake; in their own order, the long ones are not left for the end.
"$PYTHON" -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder "${marks[@]}" "$@"
((bats == 0)) || fail "bats: $RECIPE_BATS_RESULT (above, and in $VENV/logs/bats.log)"
