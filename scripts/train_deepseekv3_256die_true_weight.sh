#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# cann-recipes-train's 256-die run with the converted weights.
# On every node; options as for scripts/launch.sh (docs/LAUNCH.md). usage: scripts/train_deepseekv3_256die_true_weight.sh [--head ADDRESS] ...
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec bash "$here/launch.sh" "$here/../configs/a3_256die_true_weight.toml" "$@"
