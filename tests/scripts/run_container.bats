#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# scripts/run_container.sh on hosts made of plain files: which devices it finds, and what it would type.

load nodes

setup() {
    # A host with sixteen dies.
    host="$BATS_TEST_TMPDIR"
    export RECIPE_DEV="$host/dev" RECIPE_HOST_ROOT="$host"
    mkdir -p "$host"/{dev,data,bin,usr/local/bin,usr/local/Ascend/driver/lib64}
    touch "$host"/dev/davinci{0..15} "$host"/dev/{davinci_manager,devmm_svm,hisi_hdc,davinci3_info} \
        "$host/usr/local/bin/npu-smi"
}

run_container() { bash "$REPO/scripts/run_container.sh" "$@"; }

# dry ARGUMENT...: the command it would run, in the array `command`.
dry() {
    run -0 run_container --dry-run "$@"
    mapfile -t command < <(xargs printf '%s\n' <<<"$output")
}

# values OPTION: what the command gives it, one a line.
values() {
    local number
    for ((number = 0; number + 1 < ${#command[@]}; number++)); do
        [[ "${command[number]}" != "$1" ]] || printf '%s\n' "${command[number + 1]}"
    done
}

# refused CODE TEXT ARGUMENT...: one line on stderr. 1: this host cannot; 2: the options are wrong.
refused() {
    run --separate-stderr "-$1" run_container --dry-run "${@:3}"
    # shellcheck disable=SC2154
    [[ -z "$output" && "$stderr" == "error: "*"$2"* && "$stderr" != *$'\n'* ]] || { printf '%s\n' "$stderr" && return 1; }
}

@test "all dies are found, in the order of their numbers" {
    dry image:1
    [ "$(values --device)" = "$(printf "$host/dev/%s\n" davinci{0..15} davinci_manager devmm_svm hisi_hdc)" ]
    [ "${command[*]:0:3}" = "docker run --rm" ]
    [ "${command[-1]}" = image:1 ]
}

@test "it runs as the caller, in the devices' group, without privileges" {
    dry image:1 bash -c "echo 'a b'"
    [ "$(values --user)" = "$(id -u):$(id -g)" ]
    [ "$(values --group-add)" = "$(stat -c %g "$host/dev/davinci0")" ]
    [ "$(values --security-opt)" = no-new-privileges ]
    [ "$(values --env)" = "HOME=/runs"$'\n'"USER=$(id -un)" ]
    [ -z "$(values --cap-add)" ]
    [[ " ${command[*]} " != *" --privileged "* ]]
    [ "$(printf '%s|' "${command[@]: -4}")" = "image:1|bash|-c|echo 'a b'|" ]
}

@test "only what the host has of the driver is mounted, and a dry run makes nothing" {
    dry --runs "$host/my runs" --mount "$host/data" image:1
    [ "$(values --volume)" = "$host/usr/local/Ascend/driver/lib64:/usr/local/Ascend/driver/lib64:ro
$host/usr/local/bin/npu-smi:/usr/local/bin/npu-smi:ro
$host/data:$host/data
$host/my runs:/runs" ]
    [ ! -e "$host/my runs" ]
}

@test "--devices takes some of the dies" {
    dry --devices 3,12 image:1
    [ "$(values --device | head -n 2)" = "$host/dev/davinci3"$'\n'"$host/dev/davinci12" ]
    [ "$(values --device | wc -l)" -eq 5 ]
}

@test "an option that cannot be is said in one line" {
    refused 2 "davinci16 does not exist; this host has 0 1 2" --devices 16 i
    refused 2 "--devices 0-3: give numbers" --devices 0-3 i
    refused 2 "--mount /no/such/place: no such directory" --mount /no/such/place i
    refused 2 "unknown option --privileged" --privileged i
    refused 2 "--name needs a value" --name
    refused 2 "--devices needs a value" --devices "" i
    refused 2 "docker takes no path with a colon" --runs "$host/a:b" i
    refused 2 "no image given"
    refused 2 "no image given" ""
}

@test "a host without the driver's library is said in one line" {
    rmdir "$host/usr/local/Ascend/driver/lib64"
    refused 1 "driver/lib64 does not exist; is the driver installed?" i
}

@test "a host without a device that every die needs is said in one line" {
    rm "$host/dev/hisi_hdc"
    refused 1 "hisi_hdc does not exist, and no NPU works without it" i
}

@test "a host without NPUs is said in one line" {
    rm "$host"/dev/davinci[0-9]*
    refused 1 "no NPU found" i
}

@test "it starts docker with what a dry run shows, and makes the directory for runs" {
    printf '#!/bin/sh\nprintf "%%s\\n" "$@"\n' >"$host/bin/docker"
    chmod +x "$host/bin/docker"
    dry --runs "$host/runs" image:1 true
    PATH="$host/bin:$PATH" run -0 run_container --runs "$host/runs" image:1 true
    [ "$output" = "$(printf '%s\n' "${command[@]:1}")" ]
    [ -d "$host/runs" ]
}

@test "--help says what the options mean, by an example and the exit codes" {
    run -0 run_container --help
    [[ "$output" == "Starts the NPU container"*"--devices   these NPUs"*"example: "*"exit code: "* ]]
    [[ "$output" != *SPDX* && "$output" != *"set -euo"* ]]
}
