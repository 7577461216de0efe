#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# scripts/test.sh with tools that only say that they were called: which of them decide, and what the last lines are.

# shellcheck disable=SC2016 # what is in single quotes is for another shell

load nodes

setup() {
    # A repository with nothing but the script.
    bin="$BATS_TEST_TMPDIR/.venv/bin" logs="$BATS_TEST_TMPDIR/.venv/logs"
    mkdir -p "$BATS_TEST_TMPDIR"/{scripts,tests/scripts} "$bin" "$logs"
    cp "$REPO"/scripts/{env,test}.sh "$BATS_TEST_TMPDIR/scripts"
    tool "$BATS_TEST_TMPDIR/scripts/setup.sh" 'echo "setup.sh $*"'
    tool "$bin/python" 'echo "$*"; [ "$2" != pytest ] || { echo "[bats: $RECIPE_BATS_RESULT]"; echo "7 passed"; }'
    tool "$bin/shellcheck" 'echo shellcheck'
    tool "$bin/bats" 'echo "bats $*"; printf "ok 1 a\nok 2 b\n"'
    unset RECIPE_VENV RECIPE_BATS_RESULT
}

# tool FILE TEXT: a shell script of that text.
tool() {
    printf '#!/bin/sh\n%s\n' "$2" >"$1"
    chmod +x "$1"
}

suite() { bash "$BATS_TEST_TMPDIR/scripts/test.sh" "$@"; }

@test "slow tests of both are left out, and both counts stand at the end" {
    run -0 suite -x tests/recipe
    said "setup.sh --dev" "bats --tap --print-output-on-failure --filter-tags !slow tests/scripts"
    said "-m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m not slow -x tests/recipe"
    [ "$(printf '%s|' "${lines[@]: -2}")" = "[bats: 2 passed, 0 failed]|7 passed|" ]
}

@test "--all runs the slow ones of both" {
    run -0 suite --all -x
    said "bats --tap --print-output-on-failure tests/scripts" "-m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -x"
}

@test "--fast leaves bats and what is not quick out, and says so" {
    run -0 suite --fast tests/recipe
    said "-m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m not slow -p tests.fast -rfE tests/recipe"
    [[ "$output" != *"bats --tap"* ]]
    [ "$(printf '%s|' "${lines[@]: -2}")" = "[bats: left out]|7 passed|" ]
}

@test "a failure in bats fails the suite, after pytest" {
    tool "$bin/bats" 'printf "ok 1 a\nnot ok 2 b\n"; exit 1'
    run -1 suite
    said "not ok 2 b" "7 passed"
    [ "${lines[-1]}" = "error: bats: 1 passed, 1 failed (above, and in $logs/bats.log)" ]
}

@test "bats that does not start fails the suite" {
    tool "$bin/bats" 'exit 127'
    run -1 suite
    said "error: bats: 0 passed, 0 failed"
}

@test "a failure in pytest fails the suite" {
    tool "$bin/python" '[ "$2" != pytest ] || exit 3'
    run -3 suite
}

@test "a linter's failure ends it before any test" {
    for name in "ruff check" "ruff format" mypy; do
        tool "$bin/python" "case \"\$*\" in *'$name'*) exit 1 ;; esac"
        run -1 suite
        [[ "$output" != *"test: bats"* ]]
    done
}
