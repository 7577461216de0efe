#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# scripts/launch.sh given what cannot work: one line, exit code 2 (1 where the machine is at fault), and nothing started.

load nodes

setup_file() {
    export dir runs temp base
    new_nodes "$BATS_FILE_TMPDIR"
}

teardown_file() { nothing_left; }

teardown() { [[ -z "${listener:-}" ]] || kill "$listener"; }

# refused CODE TEXT: so the launcher ended, in one line of error and before it made the run's directory.
refused() {
    [ "$status" -eq "$1" ] && said "error: $2" && [ "$(grep -c '^error: ' <<<"$output")" -eq 1 ] && [ ! -e "$runs/sim" ]
}

listening() { "$PYTHON" -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])))' "$@" 2>/dev/null; }

@test "a port in use is named, with whom and what it is for" {
    run_file nodes=2 dies_per_node=1
    "$PYTHON" -m http.server --bind 127.0.0.2 "$base" >/dev/null 2>&1 3>&- &
    listener=$!
    await 30 listening 127.0.0.2 "$base"
    run launch 1 --no-preflight
    refused 1 "port $base (Ray, GCS) is in use by "
    said "(pid $listener)"
}

@test "an interface that is not there; those that are, are named" {
    run_file nodes=2 dies_per_node=1
    run launch 1 --no-preflight --interface eth77
    refused 2 "interface eth77 does not exist; this machine has "
}

@test "an address of another machine" {
    run_file nodes=2 dies_per_node=1
    run launch 1 --no-preflight --head 192.0.2.1 --address 192.0.2.77
    refused 2 "192.0.2.77 is not an address of this machine"
}

@test "a node name that is no directory name" {
    run_file nodes=2 dies_per_node=1
    run launch 1 --no-preflight --node-name ../x
    refused 2 "node name '../x': use letters"
}

@test "ports beyond the last one" {
    run_file nodes=2 dies_per_node=1
    run launch 1 --no-preflight --ports 65500
    refused 2 "ports go up to 65571, beyond 65535"
}

@test "a worker of a run on one node" {
    run_file nodes=1
    run launch 2 --no-preflight
    refused 2 "--head is for runs on several nodes, and [cluster] nodes of "
}

@test "a run file that is not there" {
    rm -f "$dir/run.toml"
    run launch 1
    refused 2 "$dir/run.toml"
}

@test "a key that does not exist; the nearest is named" {
    run_file nodes=2 dies_per_node=1
    sed -i 's/^nodes = /node = /' "$dir/run.toml"
    run launch 1
    refused 2 ""
    said "nodes"
}

@test "no run file at all: usage" {
    run bash "$REPO/scripts/launch.sh"
    [ "$status" -eq 2 ]
    said "usage: "
}

@test "a failed preflight" {
    run_file nodes=2 dies_per_node=1 steps=2 temperature=0.5 max_batched_tokens=1
    run launch 1
    refused 2 "preflight: "
    said "the run was not started (docs/PREFLIGHT.md; --no-preflight goes on all the same)"
    [ ! -e "$runs" ]
}
