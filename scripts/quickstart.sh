#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to a finished GRPO run and its report.
#
# usage: scripts/quickstart.sh [--config RUN.toml] [--data FILE.json] [--steps N] [--name NAME] [--seed S] [-- KEY=VALUE ...]
#   --config   the run file; default: configs/sim.toml
#   --data     problems of your own: a JSON list of {"problem", "answer", "solution"}; default: sums
#   --steps    that many steps, instead of the run file's
#   --name     the run's directory is runs/NAME, instead of the run file's name
#   --seed     of the tiny model, the order of the data and the training
#   --         settings of verl: docs/LAUNCH.md
#
# examples:
#   bash scripts/quickstart.sh
#   bash scripts/quickstart.sh --config configs/sim_4die.toml --steps 2
# exit code: 0 finished; 1 set-up or run failed (one line says why); 2 a mistake in options or run file; 3 the watch over
# the training stopped the run; 130, 143 stopped
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
own_python

usage="usage: scripts/quickstart.sh [--config RUN.toml] [--data FILE.json] [--steps N] [--name NAME] [--seed S] [-- KEY=VALUE ...]"
config="$REPO/configs/sim.toml" options=() settings=()
while (($#)); do
    case "$1" in
        -h | --help) help_of "${BASH_SOURCE[0]}" && exit 0 ;;
        --config | --data | --steps | --name | --seed)
            (($# >= 2)) || refuse "$1 needs a value; $usage"
            case "$1" in
                --config) config="$(realpath -m "$2")" ;;
                --data) options+=("$1" "$(realpath -m "$2")") ;;
                --steps | --seed)
                    [[ "$2" =~ ^[0-9]{1,9}$ ]] || refuse "$1 is '$2'; give a whole number; $usage"
                    options+=("$1" "$2")
                    ;;
                *) options+=("$1" "$2") ;;
            esac
            shift 2
            ;;
        --) settings=("$@") && break ;;
        *) refuse "unknown option $1; $usage" ;;
    esac
done
[[ -f "$config" ]] || refuse "$config is not a file; $usage"

bash "$REPO/scripts/setup.sh" --prepare "$config" "${options[@]}"
cd "$REPO"
exec "$PYTHON" -m recipe launch "$config" "${options[@]}" "${settings[@]}"
