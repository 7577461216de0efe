#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The 256-die run of verl's r1_ascend recipe, under the later name of the script that starts its trainer.
# On every node; options as for scripts/launch.sh (docs/LAUNCH.md). usage: scripts/run_deepseekv3_671b_grpo_megatron_npu.sh [--head ADDRESS] ...
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec bash "$here/launch.sh" "$here/../configs/a3_256die.toml" "$@"
