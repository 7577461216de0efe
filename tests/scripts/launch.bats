#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# scripts/launch.sh with real Ray, as a shell sees it: what nodes say, how they end, and what they leave on a machine where
# another Ray runs. A stand-in takes the trainer's place. Resuming and the real trainer are pytest's: test_launch*.py.

load nodes

# What three dies can share.
three=(nodes=3 dies_per_node=1 prompts_per_step=12 expert_parallel=1)

setup_file() { start_foreign_ray; }
teardown_file() { stop_foreign_ray; }

teardown() {
    local failed=0
    nothing_left || failed=1
    foreign_ray_goes_on || failed=1
    [[ -n "${BATS_TEST_COMPLETED:-}" ]] || tail -n 30 "$dir"/*.out
    return "$failed"
}

# the_run: one run on three nodes, while a fourth and one with another token come to it; the tests that need it share it.
# The second node sees the head's directory of runs, the third has its own.
the_run() {
    dir="$BATS_FILE_TMPDIR/run" runs="$BATS_FILE_TMPDIR/run/runs"
    if [[ -e "$dir" ]]; then
        [[ -e "$dir/over" ]] || { printf 'the run that this test shares did not get to its end\n' && return 1; }
        return 0
    fi
    new_nodes "$dir"
    run_file "${three[@]}" steps=2
    export STAND_IN_STEP=2 STAND_IN_GO="$dir/go"
    start head 1
    await 60 test -s "$dir/token"
    start second 2
    own_runs="$dir/elsewhere" start third 3 --node-name third
    await 90 admitted "$runs" "$dir/elsewhere"
    (umask 077 && printf '0123456789abcdef0123456789abcdef' >"$dir/guess")
    start extra 4
    start guesser 5 --token-file "$dir/guess"
    end_of extra guesser
    touch "$dir/go"
    end_of head second third
    touch "$dir/over"
}

# admitted RUNS...: a worker has made its directory in each.
admitted() {
    local one
    for one in "$@"; do compgen -G "$one/sim/nodes/*" >/dev/null || return 1; done
}

@test "a head and two workers run, and all end well" {
    the_run
    for name in head second third; do
        end_of "$name"
        [ "$status" -eq 0 ]
        [[ "$output" != *"error:"* ]]
    done
    said "third: the run has finished"
}

@test "every die takes part, under its own node's directory" {
    the_run
    output="$(<"$runs/sim/logs/driver.log")"
    said "dies: ['127.0.0.2 $runs/sim', '127.0.0.3 $runs/sim/nodes/127.0.0.3', '127.0.0.4 $dir/elsewhere/sim/nodes/third']"
}

@test "one node too many is turned away, told who is there, and the run goes on" {
    the_run
    end_of extra
    [ "$status" -eq 1 ]
    said "one node too many: the run has 3, and 127.0.0.2, "
    end_of head
    said "turned away 127.0.0.5 (" "one node too many"
    [ ! -e "$runs/sim/nodes/127.0.0.5" ]
}

@test "a node with another token is turned away, and the run goes on" {
    the_run
    end_of guesser
    [ "$status" -eq 1 ]
    end_of head
    said "turned away a caller from 127.0.0.1: the other end holds another token"
    [ ! -e "$runs/sim/nodes/127.0.0.6" ]
}

@test "the logs of a node that has storage of its own come to the head" {
    the_run
    for log in ray-start.log ray/raylet.out; do
        test -s "$runs/sim/nodes/third/logs/$log"
        cmp "$runs/sim/nodes/third/logs/$log" "$dir/elsewhere/sim/nodes/third/logs/$log"
    done
}

@test "a worker's raylet is killed: every node ends, and says which one it was" {
    new_nodes "$BATS_TEST_TMPDIR"
    run_file "${three[@]}" steps=5
    STAND_IN_STEP=3 start head 1
    await 60 test -s "$dir/token"
    start second 2
    start third 3
    await 120 grep -q '"step": 3' "$runs/sim/metrics.jsonl"
    raylet="$(nodes of "$runs/sim/nodes/127.0.0.4" | awk '$2 == "raylet" { print $1; exit }')"
    kill -9 "$raylet"
    end_of head
    [ "$status" -eq 1 ]
    said "error: after step 3: node 127.0.0.4 (" "its Ray ended: "
    end_of second
    [ "$status" -eq 1 ]
    said "error: the run failed: after step 3: node 127.0.0.4 ("
    end_of third
    [ "$status" -eq 1 ]
    said "error: its Ray ended: "
}

@test "a node never comes: at the deadline all end, and it is named" {
    new_nodes "$BATS_TEST_TMPDIR"
    run_file "${three[@]}" 'hosts=["127.0.0.2", "127.0.0.3", "node-that-sleeps"]' wait_deadline_s=5
    start head 1
    start second 2
    end_of head
    [ "$status" -eq 1 ]
    # On a busy machine the second node's Ray may still be starting by then.
    missing='[12] of 3 nodes after 5 s: (127\.0\.0\.3 has come, but its Ray has not joined; )?node-that-sleeps has not come'
    grep -qE "^error: $missing\$" <<<"$output"
    end_of second
    [ "$status" -eq 1 ]
    grep -qE "^error: the run (failed|ended before this node took part): $missing\$" <<<"$output"
    grep -q '"status": "failed"' "$runs/sim/result.json"
}
