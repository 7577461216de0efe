# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# For the .bats files here: several nodes on this machine, and another Ray. What pytest needs too is done by nodes.py.

bats_require_minimum_version 1.5.0
# shellcheck source-path=SCRIPTDIR source=../../scripts/env.sh
source "$BATS_TEST_DIRNAME/../../scripts/env.sh"
# A launcher that inherited these would write into that run.
unset RECIPE_RUN_DIR RECIPE_RUN_ID
export OMP_NUM_THREADS=1

nodes() { "$PYTHON" "$REPO/tests/scripts/nodes.py" "$@"; }

# said TEXT...: the last command that was run said each of them.
said() {
    local text
    for text in "$@"; do
        # shellcheck disable=SC2154
        [[ "$output" == *"$text"* ]] || { printf 'it did not say: %s\n' "$text" && return 1; }
    done
}

# await SECONDS COMMAND...: until COMMAND succeeds.
await() {
    local end=$((SECONDS + $1))
    until "${@:2}"; do
        ((SECONDS < end)) || { printf 'not within %s s: %s\n' "$1" "${*:2}" && return 1; }
        sleep 0.2
    done
}

gone() { ! kill -0 "$1" 2>/dev/null; }

# new_nodes DIR: the nodes of one run, all they have being in DIR: the run file, the token, what they say, runs/. Only
# what is temporary is elsewhere, under a shorter path for the sake of Ray's sockets.
new_nodes() {
    dir="$1" runs="$1/runs"
    mkdir -p "$dir"
    temp="$(mktemp -d "$BATS_RUN_TMPDIR/XXXX")"
    base="$(nodes new "$dir")"
}

# run_file KEY=VALUE...: DIR/run.toml, configs/sim.toml with these changes. Should bats be killed, the nodes end by the
# deadlines.
run_file() { nodes run-file "$dir" "$base" setup_deadline_s=120 step_deadline_s=120 wait_deadline_s=120 "$@"; }

# launch NUMBER [OPTION...]: scripts/launch.sh as node NUMBER, in place of this shell.
launch() {
    local options
    mapfile -t options < <(nodes place "$base" "$1")
    exec env TMPDIR="$temp" RECIPE_VENV="$dir/venv" RECIPE_RUNS="${own_runs:-$runs}" RECIPE_TOKEN_FILE="$dir/token" \
        bash "$REPO/scripts/launch.sh" "$dir/run.toml" "${options[@]}" "${@:2}"
}

# start NAME NUMBER [OPTION...]: that in the background and without preflight, until end_of NAME.
start() {
    launch "${@:2}" --no-preflight >"$dir/$1.out" 2>&1 3>&- &
    printf '%s\n' "$!" >"$dir/$1.pid"
}

# end_of NAME...: wait for them; status and output are those of the last, as after `run`.
end_of() {
    local name pid
    for name in "$@"; do
        if [[ ! -e "$dir/$name.status" ]]; then
            pid="$(<"$dir/$name.pid")"
            await 120 gone "$pid"
            status=0
            wait "$pid" || status=$?
            printf '%s\n' "$status" >"$dir/$name.status"
        fi
        status="$(<"$dir/$name.status")"
        output="$(<"$dir/$name.out")"
    done
}

# nothing_left: of the nodes; what is, launchers too, is ended and removed, and said where it should not have been there.
nothing_left() {
    local file pid left
    for file in "$dir"/*.pid; do
        [[ -e "$file" ]] && kill "$(<"$file")" 2>/dev/null
    done
    for file in "$dir"/*.pid; do
        [[ -e "$file" ]] || continue
        pid="$(<"$file")"
        await 60 gone "$pid" || kill -9 "$pid"
    done
    left="$(
        nodes kill "$dir"
        [[ ! -d "${temp:-}" ]] || find "$temp" -mindepth 1 -maxdepth 1
    )"
    [[ ! -d "${temp:-}" ]] || rm -rf "$temp"
    [[ -z "$left" ]] || { printf 'left behind:\n%s\n' "$left" && return 1; }
}

# start_foreign_ray: somebody else's Ray on this machine.
start_foreign_ray() {
    export foreign_pid foreign_daemons
    local temp
    temp="$(mktemp -d "$BATS_RUN_TMPDIR/XXXX")"
    "$PYTHON" "$REPO/tests/scripts/nodes.py" ray "$temp" >"$temp/out" 2>&1 3>&- &
    foreign_pid=$!
    await 120 up_or_gone "$temp/out" "$foreign_pid"
    gone "$foreign_pid" && cat "$temp/out" && return 1
    foreign_daemons="$(nodes daemons "$foreign_pid")"
    [[ "$(wc -l <<<"$foreign_daemons")" == 2 ]]
}

up_or_gone() { grep -q "Ray runtime started" "$1" || gone "$2"; }

foreign_ray_goes_on() {
    [[ "$(nodes daemons "$foreign_pid")" == "$foreign_daemons" ]] || { printf 'the other Ray is gone\n' && return 1; }
}

stop_foreign_ray() {
    kill "$foreign_pid" 2>/dev/null
    await 30 gone "$foreign_pid"
}
