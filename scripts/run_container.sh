#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Starts the NPU container with every NPU of this host, as the calling user, without privileges.
#
# usage: scripts/run_container.sh [--dry-run] [--devices 0,1,...] [--runs DIR] [--mount DIR]... [--name NAME] IMAGE [COMMAND...]
#   --dry-run   print the command instead of running it
#   --devices   these NPUs only; default: all that are found
#   --runs      directory for runs, /runs in the container; default: runs/ of this repository
#   --mount     a directory that the run file names (weights, data), at the same place in the container; may be repeated
#   --name      the container's name
#
# example: scripts/run_container.sh --mount /shared deepseek-v3-grpo scripts/launch.sh /shared/run.toml
# exit code: the container's; 1 this host cannot start it; 2 a mistake in the options
# Not tried on an NPU host: the devices and driver files are those that vLLM-Ascend's and CANN's documentation name.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

usage="usage: scripts/run_container.sh [--dry-run] [--devices 0,1,...] [--runs DIR] [--mount DIR]... [--name NAME] IMAGE [COMMAND...]"
# Another place for /dev and /, so that this can be tried where there is no NPU.
dev="${RECIPE_DEV:-/dev}" root="${RECIPE_HOST_ROOT:-}"
dry_run=no wanted="" runs="$REPO/runs" name="" mounts=()
while (($#)); do
    case "$1" in
        -h | --help) help_of "${BASH_SOURCE[0]}" && exit 0 ;;
        --dry-run) dry_run=yes && shift ;;
        --devices | --runs | --mount | --name)
            (($# >= 2)) && [[ -n "$2" ]] || refuse "$1 needs a value; $usage"
            case "$1" in
                --devices) wanted="$2" ;;
                --runs) runs="$(realpath -m -- "$2")" ;;
                --mount) mounts+=("$(realpath -m -- "$2")") ;;
                --name) name="$2" ;;
            esac
            shift 2
            ;;
        -*) refuse "unknown option $1; $usage" ;;
        *) break ;;
    esac
done
(($#)) && [[ -n "$1" ]] || refuse "no image given; $usage"

# device_numbers: the NPUs of this host, in order.
device_numbers() {
    local file
    for file in "$dev"/davinci[0-9]*; do
        [[ "$file" =~ /davinci([0-9]+)$ && -e "$file" ]] && printf '%s\n' "${BASH_REMATCH[1]}"
    done | sort -n
}

mapfile -t found < <(device_numbers)
((${#found[@]})) || fail "no NPU found: $dev has no davinci0, davinci1, ...; is the driver installed and loaded (npu-smi info)?"
chosen=("${found[@]}")
if [[ -n "$wanted" ]]; then
    [[ "$wanted" =~ ^[0-9]+(,[0-9]+)*$ ]] || refuse "--devices $wanted: give numbers, such as 0,1,2,3"
    IFS=, read -r -a chosen <<<"$wanted"
    for number in "${chosen[@]}"; do
        [[ -e "$dev/davinci$number" ]] || refuse "$dev/davinci$number does not exist; this host has ${found[*]}"
    done
fi

arguments=(run --rm --init)
[[ -t 0 && -t 1 ]] && arguments+=(--interactive --tty)
[[ -n "$name" ]] && arguments+=(--name "$name")
for number in "${chosen[@]}"; do arguments+=(--device "$dev/davinci$number"); done
for file in davinci_manager devmm_svm hisi_hdc; do
    [[ -e "$dev/$file" ]] || fail "$dev/$file does not exist, and no NPU works without it; is the driver installed and loaded?"
    arguments+=(--device "$dev/$file")
done

# The driver is the host's. What differs between driver versions is mounted where it is there; the library is a must.
[[ -d "$root/usr/local/Ascend/driver/lib64" ]] || fail "$root/usr/local/Ascend/driver/lib64 does not exist; is the driver installed?"
for file in /usr/local/Ascend/driver/lib64 /usr/local/Ascend/driver/version.info /usr/local/Ascend/driver/tools \
    /usr/local/dcmi /usr/local/bin/npu-smi /etc/ascend_install.info /etc/hccn.conf; do
    [[ -e "$root$file" ]] && arguments+=(--volume "$root$file:$file:ro")
done

# The calling user, in the group that may open the devices; no capability, and none to be gained.
arguments+=(--user "$(id -u):$(id -g)" --group-add "$(stat -c %g "$dev/davinci${chosen[0]}")")
# It is in no passwd file of the container, where torch and vLLM would look its name up.
arguments+=(--security-opt no-new-privileges --env HOME=/runs --env "USER=$(id -un 2>/dev/null || id -u)")
# HCCL and Ray speak to other hosts with this one's addresses. Pinned memory is locked; Ray's object store is in /dev/shm.
arguments+=(--network host --ulimit memlock=-1 --ulimit nofile=1048576 --shm-size "$(($(memory_mib) / 2))m")
for directory in "${mounts[@]}" "$runs"; do
    [[ "$directory" != *:* ]] || refuse "$directory: docker takes no path with a colon"
done
for directory in "${mounts[@]}"; do
    [[ -d "$directory" ]] || refuse "--mount $directory: no such directory"
    arguments+=(--volume "$directory:$directory")
done
arguments+=(--volume "$runs:/runs" "$@")

if [[ "$dry_run" == yes ]]; then
    printf 'docker'
    printf ' %q' "${arguments[@]}"
    printf '\n'
    exit 0
fi
docker="$(command -v docker || command -v podman || true)"
[[ -n "$docker" ]] || fail "neither docker nor podman was found"
mkdir -p "$runs"
exec "$docker" "${arguments[@]}"
