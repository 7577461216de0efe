#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# scripts/env.sh: what the scripts that source it get. How they fail with it is in tests/test_scripts.py.

# shellcheck disable=SC2016 # what is in single quotes is for another shell

load nodes

# python NAME VERSION: a python in bin/ that says it is that one; "-" for one that does not start.
python() {
    mkdir -p "$BATS_TEST_TMPDIR/bin"
    printf '#!/bin/sh\n[ %s = - ] && exit 1\necho %s\n' "$2" "$2" >"$BATS_TEST_TMPDIR/bin/$1"
    chmod +x "$BATS_TEST_TMPDIR/bin/$1"
}

# found: the python that is taken, when there are those of bin/ only.
found() { PATH="$BATS_TEST_TMPDIR/bin" find_python; }

@test "the repository is found from anywhere, and the environment is in it unless RECIPE_VENV names another" {
    cd /
    run -0 env -u RECIPE_VENV bash -c 'source "$0"; echo "$REPO $VENV $PYTHON"' "$REPO/scripts/env.sh"
    [ "$output" = "$REPO $REPO/.venv $REPO/.venv/bin/python" ]
    run -0 env RECIPE_VENV=/v bash -c 'source "$0"; echo "$REPO $VENV $PYTHON"' "$REPO/scripts/env.sh"
    [ "$output" = "$REPO /v /v/bin/python" ]
}

@test "bytecode is kept, even where the shell that calls does not want any" {
    run -0 env PYTHONDONTWRITEBYTECODE=1 bash -c 'source "$0"; env' "$REPO/scripts/env.sh"
    [[ "$output" != *PYTHONDONTWRITEBYTECODE* ]]
}

@test "fail: one line on stderr, exit code 1, and nothing after it runs" {
    run --separate-stderr -1 bash -c 'source "$0"; fail "a * b  is" "%s"; echo after' "$REPO/scripts/env.sh"
    [ -z "$output" ]
    [ "$stderr" = "error: a * b  is %s" ]
}

@test "hash_of: another text, content or order is another hash" {
    cd "$BATS_TEST_TMPDIR"
    printf a >one
    printf b >two
    first="$(hash_of text one two)"
    [ "${#first}" -eq 64 ]
    [ "$(hash_of text one two)" = "$first" ]
    [ "$(hash_of "text " one two)" != "$first" ]
    [ "$(hash_of text two one)" != "$first" ]
    printf c >>two
    [ "$(hash_of text one two)" != "$first" ]
}

@test "find_python: 3.11 before 3.12 before 3.10 before python3" {
    for name in python3:3.12 python3.10:3.10 python3.12:3.12 python3.11:3.11; do
        python "${name%:*}" "${name#*:}"
        [ "$(found)" = "$BATS_TEST_TMPDIR/bin/${name%:*}" ]
    done
}

@test "find_python: one that is too old, too new or broken is passed over" {
    python python3.11 -
    python python3.12 3.13
    python python3.10 3.9
    python python3 3.10
    [ "$(found)" = "$BATS_TEST_TMPDIR/bin/python3" ]
}

@test "find_python: RECIPE_PYTHON is taken, and nothing else when it does not fit" {
    python python3.11 3.11
    python mine 3.12
    RECIPE_PYTHON=mine run -0 found
    [ "$output" = "$BATS_TEST_TMPDIR/bin/mine" ]
    python mine 3.8
    RECIPE_PYTHON=mine run -2 found
    said "error: RECIPE_PYTHON is mine: mine is 3.8; name a Python 3.10, 3.11 or 3.12"
}

@test "memory_mib: at most the machine's, and some" {
    run -0 memory_mib
    [ "$output" -gt 0 ]
    [ "$output" -le "$(($(awk '/^MemTotal:/ { print $2 }' /proc/meminfo) / 1024))" ]
}
