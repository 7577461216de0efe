#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What stands in scripts/launch.sh and the published entries that call it, with a python that prints its arguments.

load nodes

setup() {
    python="$BATS_TEST_TMPDIR/venv/bin/python"
    mkdir -p "${python%/*}"
    printf '#!/bin/sh\nprintf "%%s\\n" "$@"\n' >"$python"
    chmod +x "$python"
    export RECIPE_VENV="$BATS_TEST_TMPDIR/venv"
    cd "$BATS_TEST_TMPDIR" || exit
}

# starts SCRIPT CONFIG: from any directory, with all its options as they were given.
starts() {
    run -0 bash "$REPO/scripts/$1" --head "a b" --name '*'
    [ "${lines[*]:0:3}" = "-m recipe node" ]
    [ "$(realpath "${lines[3]}")" = "$REPO/configs/$2" ]
    [ -f "${lines[3]}" ]
    [ "$(printf '%s|' "${lines[@]:4}")" = "--head|a b|--name|*|" ]
}

@test "ray_start_grpo_npu.sh" { starts ray_start_grpo_npu.sh a3_256die.toml; }

@test "run_grpo_deepseekv3_671b_npu_megatron.sh" { starts run_grpo_deepseekv3_671b_npu_megatron.sh a3_256die.toml; }

@test "run_deepseekv3_671b_grpo_megatron_npu.sh" { starts run_deepseekv3_671b_grpo_megatron_npu.sh a3_256die.toml; }

@test "train_deepseekv3_256die_true_weight.sh" {
    starts train_deepseekv3_256die_true_weight.sh a3_256die_true_weight.toml
}

@test "train_deepseekv3_256die_random_init.sh" {
    starts train_deepseekv3_256die_random_init.sh a3_256die_random_init.toml
}

@test "an entry becomes the launcher, which gets its signals and gives the exit code" {
    # shellcheck disable=SC2016
    printf '#!/bin/sh\necho "$$" >pid\nexit 143\n' >"$python"
    bash "$REPO/scripts/ray_start_grpo_npu.sh" &
    status=0
    wait "$!" || status=$?
    [ "$status" -eq 143 ]
    [ "$(<pid)" = "$!" ]
}

@test "launch.sh takes the system's python where there is no virtual environment, as in the container" {
    mkdir bin
    mv "$python" bin/python3
    PATH="$PWD/bin:$PATH" run -0 bash "$REPO/scripts/launch.sh" run.toml
    [ "${lines[*]}" = "-m recipe node run.toml" ]
}

@test "launch.sh without any python says so in one line" {
    rm "$python"
    mkdir bin
    ln -s "$(command -v bash)" "$(command -v dirname)" bin
    PATH="$PWD/bin" run -1 bash "$REPO/scripts/launch.sh" run.toml
    [ "$output" = "error: no python3 found; run scripts/setup.sh first, or start this in the container" ]
}

@test "launch.sh puts this repository before the caller's PYTHONPATH" {
    # shellcheck disable=SC2016
    printf '#!/bin/sh\necho "$PYTHONPATH"\n' >"$python"
    PYTHONPATH=/of/the/caller run -0 bash "$REPO/scripts/launch.sh" run.toml
    [ "$output" = "$REPO:/of/the/caller" ]
    unset PYTHONPATH
    run -0 bash "$REPO/scripts/launch.sh" run.toml
    [ "$output" = "$REPO" ]
}
