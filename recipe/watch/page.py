# SPDX-License-Identifier: Apache-2.0
"""The rules as docs/WATCH.md: `python -m recipe.watch.page` writes it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from recipe.runfile.schema import Watch
from recipe.watch.rule import Rule
from recipe.watch.rules import RULES
from recipe.watch.watch import QUIET_STEPS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "WATCH.md"
_HEAD = f"""\
# The watch over the training

A step of a policy that has died costs as much as one that learns, and its checkpoints replace the good ones. So the
launcher of the head looks at every line of `metrics.jsonl` as it comes, by the rules below. This page is made from
their declarations in `recipe/watch/` by `python -m recipe.watch.page`; a test checks that it is current.

- **A warning** is one line on the terminal, a line in `runs/NAME/marks.jsonl`, and a mark on the curves of the report,
  which lists them all, as `summary.json` does. Then that rule is silent for {QUIET_STEPS} steps, unless it stops the
  run.
- **A stop** ends the run on all nodes with exit code 3. The error line names the rule, the figures, and the last good
  checkpoint; `result.json` has them as `"status": "stopped"`, `rule` and `last_good_checkpoint`.

`[watch]` of the run file has a key for each rule, `"stop"`, `"warn"` or `"off"`, and one for its bound
([CONFIG.md](CONFIG.md)); `enabled = false` turns all of them off. They may be changed when a run goes on.

```toml
[watch]
reward_drop = "warn"
cut_off_share = 0.8
```

The same rules look at a run that has ended, was started by another launcher, or goes on elsewhere:

```bash
python3 -m recipe doctor runs/sim
```

## Which checkpoint is good
What a step measures, it measures before its update: a step without a finding speaks for the checkpoint of the step
before it, and a validation for that of its own step. The last good checkpoint is the last whole one that such a step
speaks for; for a fall from a best value it is one of the best steps. A first update that ruins the policy leaves none:
the message says so, and the run has to begin anew.

## After a stop
1. Look at the report: `runs/NAME/report.html` has the marks on its curves, and answers as the policy gives them.
2. Find the cause: the table has the usual ones. A learning rate that is too high shows in the gradient norm and in the
   divergence from the reference before anything else.
3. Go on from the checkpoint that the line names, with the cause mended: `scripts/launch.sh RUN.toml --from-step 40
   --accept train.learning_rate` ([LAUNCH.md](LAUNCH.md#going-on-after-an-end)); the later ones are put aside. The same
   command without `--from-step` takes the newest whole one, which may be of the sick policy, and is stopped again.
   Where none is good, begin anew: `scripts/launch.sh RUN.toml --fresh`.
4. If the rule is wrong about this run, set its key to `"warn"`.

## What is no finding
- Runs that measure speed (`model.kind = "random_init"`, or `rollout.ignore_eos`): only the rules marked * hold.
- Steps of earlier attempts: a run that goes on takes them in, so that it knows its best validation, and marks none
  again.

A metric that a line has, but not as a number (JSON's null, a text), counts as not-a-number.

## The rules
Steps are counted in a row: a step without a finding begins the count anew, and one that lacks the metric leaves it.

| rule | bad is | default | warns after | stops after | bounds | why | why so many |
|---|---|---|---|---|---|---|---|
"""


def text() -> str:
    """The page."""
    return _HEAD + "".join(_row(rule) for rule in RULES)


def _row(rule: Rule) -> str:
    fields = {field.name: field for field in dataclasses.fields(Watch)}
    bounds = [f"`{name} = {fields[name].default}` {fields[name].metadata['unit']}".rstrip() for name in rule.bounds]
    unit = "validation" if rule.of_validation else "step"
    cells = (
        f"`{rule.name}`{'' if rule.of_learning else ' *'}",
        rule.title,
        str(fields[rule.name].default),
        _count(rule.warn_after, unit),
        _count(rule.stop_after, unit) if rule.stop_after else "never",
        "; ".join(bounds),
        rule.why,
        rule.counts,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


def main() -> int:
    """Write the page."""
    PAGE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
