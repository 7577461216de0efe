#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to a finished GRPO run and its report.
# usage: scripts/quickstart.sh [--config configs/sim.toml] [--data FILE.json] [--steps N] [--name NAME] [--seed S]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

usage="usage: scripts/quickstart.sh [--config RUN.toml] [--data FILE.json] [--steps N] [--name NAME] [--seed S]"
config="$REPO/configs/sim.toml" seed=() options=()
while (($#)); do
    case "$1" in
        -h | --help) say "$usage" && exit 0 ;;
        --config | --data | --steps | --name | --seed)
            (($# >= 2)) || fail "$1 needs a value; $usage"
            case "$1" in
                --config) config="$(realpath -m "$2")" ;;
                --data) options+=("$1" "$(realpath -m "$2")") ;;
                --seed) seed=("$1" "$2") ;;
                *) options+=("$1" "$2") ;;
            esac
            shift 2
            ;;
        *) fail "unknown option $1; $usage" ;;
    esac
done
[[ -f "$config" ]] || fail "$config is not a file; $usage"

bash "$REPO/scripts/setup.sh" --prepare "$config" "${seed[@]}"
cd "$REPO"
exec "$PYTHON" -m recipe launch "$config" "${seed[@]}" "${options[@]}"
