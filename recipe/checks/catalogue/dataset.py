# SPDX-License-Identifier: Apache-2.0
"""D: the problems, their prompts as the model will see them, and the reward."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from recipe.checks.declaration import check
from recipe.checks.facts.problems import (
    COLUMNS,
    LONGEST,
    longest,
    parquet_faults,
    read_json,
    states_problems,
    text_of,
)  # fmt: skip
from recipe.checks.facts.run import Facts
from recipe.checks.finding import CannotTell, Complaint, NoMatter, bad, doubtful
from recipe.data.records import DataError
from recipe.data.templates import get_template
from recipe.reward.processes.tier3 import GRADERS, REQUIREMENTS
from recipe.tokenizer.ranks import tokenizer_json_fix

# Rewards by what they look for in an answer.
TAGGED = ("format", "strict_format", "acc", "base_acc", "r1_zero")
BOXED = ("acc", "base_acc", "r1_zero", "math_17k_acc", "math_lighteval")
LINED = ("dapo",)
GRADED = 200
CONVERT = "make the files with scripts/json_to_parquet.py"


def _prompt(facts: Facts) -> str:
    """The text of one prompt: of the data where that is rendered already, of the template otherwise."""
    if facts.config.data.kind == "parquet":
        prompts = facts.problems["train_path"].prompts
        if not prompts:
            raise CannotTell("there are no problems (D003)")
        return text_of(prompts[0])
    try:
        return text_of(get_template(facts.config.data.template).messages("1 + 1"))
    except DataError as error:
        raise CannotTell(f"the template cannot be read (D004): {error}") from None


def _rewards(facts: Facts) -> list[str]:
    reward = facts.config.reward
    return list(reward.mix) or [reward.verifier]


@check(
    "D001", "the problems are there", needs="files",
    why="the trainer opens them after Ray, all workers and the model are up",
    fix="correct [data], or " + CONVERT,
)  # fmt: skip
def _problem_files(facts: Facts) -> Iterator[Complaint]:
    missing = {name: file for name, file in facts.problem_files.items() if not file.is_file()}
    wrong = {name: file for name, file in missing.items() if facts.node or file.exists()}
    if missing and not wrong:
        raise CannotTell(", ".join(map(str, missing.values())) + " not on this machine")
    for name, file in wrong.items():
        yield bad(f"[data] {name} = {file} is not a file", "a file on this node")


@check(
    "D002", "the problems are in the form that is read", needs="files",
    why="verl's dataset fails on a missing column in the first batch; a converter of another recipe writes others",
    fix=CONVERT,
)  # fmt: skip
def _form(facts: Facts) -> Iterator[Complaint]:
    files = {name: file for name, file in facts.problem_files.items() if file.is_file()}
    for name, file in files.items():
        try:
            if name == "path":
                read_json(file, "plain")
            else:
                for line in parquet_faults(file):
                    yield bad(f"[data] {name} = {file}: {line}", "the columns " + ", ".join(COLUMNS))
        except DataError as error:
            yield bad(str(error), "problems that can be read")
    if not files:
        _ = facts.problem_files_here


@check(
    "D003", "there are problems for a whole step", needs="files",
    why="verl drops what does not fill a batch: with fewer problems than one step takes, there is no step at all",
    fix="lower [train] prompts_per_step, or bring more problems",
)  # fmt: skip
def _enough(facts: Facts) -> Iterator[Complaint]:
    prompts, data = facts.config.train.prompts_per_step, facts.config.data
    problems = facts.problems
    first = next(iter(problems))
    count = len(problems[first].prompts)
    usable = int(count * data.train_share) if first == "path" else count
    if usable < prompts:
        yield bad(f"{usable} problems to learn from", f"at least {prompts}, prompts_per_step")
    elif usable < 2 * prompts and facts.config.run.steps > 2:
        yield doubtful(f"{usable} problems for steps of {prompts}", "several steps' worth")
    if "validation_path" in problems and not problems["validation_path"].prompts:
        yield bad(
            "no problems to validate on", "at least 1", "bring problems to validate on: verl asserts that some are"
        )


@check(
    "D004", "the prompt template exists", needs="static", stops_derivation=True,
    why="the conversion at the launch needs it",
    fix="name one of data/templates.toml, or give FILE.toml or FILE.toml:NAME",
)  # fmt: skip
def _template(facts: Facts) -> Iterator[Complaint]:
    if facts.config.data.kind == "parquet":
        raise NoMatter
    try:
        get_template(facts.config.data.template)
    except DataError as error:
        yield bad(str(error), "a template")


@check(
    "D005", "the prompt asks for what the reward pays", needs="files",
    why="a reward that looks for tags, a box or an answer line that the prompt never asks for is 0 for the base model, "
        "and stays there",
    fix="choose [data] template and [reward] verifier that go together (docs/REWARDS.md); convert the problems again",
)  # fmt: skip
def _asks(facts: Facts) -> Iterator[Complaint]:
    text, rewards = _prompt(facts), _rewards(facts)
    for names, mark in ((TAGGED, "<answer>"), (BOXED, "boxed"), (LINED, "Answer:")):
        asking = [name for name in rewards if name in names]
        if asking and mark not in text:
            yield doubtful(f"no {mark} in the prompt, which the reward {asking[0]} looks for", f"a prompt with {mark}")


@check(
    "D006", "there is one backslash before boxed", needs="files",
    why="a published converter writes two: the model is asked for a command that LaTeX does not have, and the box that "
        "the reward looks for is another",
    fix=CONVERT + " from our templates",
)  # fmt: skip
def _backslash(facts: Facts) -> Iterator[Complaint]:
    text = _prompt(facts)
    if "\\\\boxed" in text:
        yield bad("two backslashes before boxed in the prompt", "one")
    elif "boxed" in text and "\\boxed" not in text:
        yield doubtful("boxed without a backslash in the prompt", "\\boxed")


@check(
    "D007", "the reward's file has the functions that verl calls", needs="static",
    why="verl loads it in the trainer's process, after everything else is up",
    fix="correct [reward] path: a file, relative to the repository, with compute_score and compute_scores",
)  # fmt: skip
def _reward_file(facts: Facts) -> Iterator[Complaint]:
    reward = facts.config.reward
    file = facts.repo / reward.path
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        yield bad(f"{file} cannot be read ({error})", "a Python file")
        return
    wanted = "compute_scores" if reward.workers else "compute_score"
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    names |= {
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    if wanted not in names:
        yield bad(f"{file} has no function {wanted}", "it")


@check(
    "D008", "the prompts fit, rendered with the model's own tokenizer", needs="files",
    why="verl leaves longer ones out: silently fewer problems, or none",
    fix="raise [data] max_prompt_tokens, or leave such problems out of the file",
)  # fmt: skip
def _lengths(facts: Facts) -> Iterator[Complaint]:
    tokenized = facts.tokenized
    if "error" in tokenized:
        raise CannotTell(f"the prompts cannot be rendered (D009): {tokenized['error']}")
    limit = facts.config.data.max_prompt_tokens
    lengths = sorted(tokenized["lengths"])
    over = sum(length > limit for length in lengths)
    if over and over == len(lengths):
        which = "every prompt" if len(lengths) < LONGEST else f"each of the {LONGEST} longest prompts"
        yield bad(f"{which} has over {limit} tokens (up to {lengths[-1]})", f"at most {limit}")
    elif over:
        yield doubtful(
            f"{over} prompts have over {limit} tokens (up to {lengths[-1]}) and are left out", f"at most {limit}"
        )


@check(
    "D009", "the tokenizer renders the prompts, with its marks as single tokens", needs="files",
    why="a chat template that refuses or drops the system message changes every prompt; marks in pieces are text that "
        "the base model has never seen",
    fix="take tokenizer.json and tokenizer_config.json of DeepSeek-V3-Base",
)  # fmt: skip
def _renders(facts: Facts) -> Iterator[Complaint]:
    tokenized = facts.tokenized
    if "error" in tokenized:
        fix = tokenizer_json_fix(facts.model_directory)
        yield bad(f"the tokenizer of {facts.model_directory}: {tokenized['error']}", "prompts that it renders", fix)
        return
    first = next(longest(facts.prompts, 1), [])
    for message in first:
        if message["content"].strip() not in tokenized["text"]:
            yield bad(f"the chat template drops or changes the {message['role']} message", "the whole message")
    split = [mark for mark, count in tokenized["pieces"].items() if mark in tokenized["text"] and count != 1]
    if split:
        yield bad(f"{split[0]} is {tokenized['pieces'][split[0]]} tokens", "1")


@check(
    "D015", "the prompt leaves the opening tag to the model", needs="files",
    why="the format that the reward pays begins with the model's own think tag; no answer has it behind a prompt that "
        "has written that already",
    fix="set [data] chat_template = \"data/chat_template.jinja\", or take a rule of [reward] that needs no tags",
)  # fmt: skip
def _opened(facts: Facts) -> Iterator[Complaint]:
    tagged = [name for name in _rewards(facts) if name in TAGGED]
    if not tagged:
        raise NoMatter
    tokenized = facts.tokenized
    if "error" in tokenized:
        raise CannotTell(f"the prompts cannot be rendered (D009): {tokenized['error']}")
    last = next(longest(facts.prompts, 1), [{"content": ""}])[-1]["content"].strip()
    behind = tokenized["text"].rpartition(last)[2]
    if behind.count("<think>") > behind.count("</think>"):
        yield bad(f"the prompt ends with {behind[-40:]!r}, and {tagged[0]} wants <think> from the model", "no <think>")


@check(
    "D010", "no problem to validate on is also learned from", needs="files",
    why="a score on problems that were trained on says nothing",
    fix=CONVERT + ", which refuses such a pair",
)  # fmt: skip
def _apart(facts: Facts) -> Iterator[Complaint]:
    problems = facts.problems
    if "validation_path" not in problems:
        raise NoMatter
    learned = {text_of(prompt) for prompt in problems["train_path"].prompts}
    validated = problems["validation_path"].prompts
    shared = sum(text_of(prompt) in learned for prompt in validated)
    if shared:
        yield doubtful(f"{shared} of {len(validated)} validation problems are in both", "none")


@check(
    "D011", "the ground truths can be matched by an answer", needs="files",
    why="an empty or unreadable truth makes every answer to its problem wrong",
    fix=CONVERT + ", which leaves such problems out and counts them",
)  # fmt: skip
def _truths(facts: Facts) -> Iterator[Complaint]:
    from recipe.reward.truths import can_be_matched, unmatched_kind

    verifier = _rewards(facts)[0]
    for name, problems in facts.problems.items():
        empty = sum(truth is None or not str(truth).strip() for truth in problems.truths)
        if empty:
            yield bad(f"[data] {name}: {empty} of {len(problems.truths)} ground truths are empty", "an answer for each")
        # Spread over the file, whose order is often that of its sources.
        sample = [
            truth for truth in problems.truths[:: max(1, len(problems.truths) // GRADED)] if str(truth or "").strip()
        ]
        lost = [truth for truth in sample if not can_be_matched(truth, verifier)]
        if lost:
            kind = unmatched_kind(lost[0])
            yield doubtful(
                f"[data] {name}: {len(lost)} of {len(sample)} truths cannot be matched by an answer, such as "
                f"{str(lost[0])[:40]!r} ({kind})",
                f"truths that {verifier} reads",
            )


@check(
    "D016", "the reward can see the problem", needs="files",
    why="work copied from the problem is told by the problem's text in extra_info; files of other converters lack it",
    fix=CONVERT + ", or set [reward] refuse_copied = false",
)  # fmt: skip
def _stated(facts: Facts) -> Iterator[Complaint]:
    if facts.config.data.kind != "parquet" or not facts.config.reward.refuse_copied:
        raise NoMatter
    files = facts.problem_files_here
    try:
        lacking = [name for name, file in files.items() if not states_problems(file)]
    except ValueError as error:
        raise CannotTell(f"the problems cannot be read (D002): {error}") from None
    for name in lacking:
        yield doubtful(f"[data] {name} has no text at extra_info.problem, so copied work is paid", "the problem's text")


@check(
    "D014", "what the reward pays for is worth something", needs="static",
    why="a weight of 0 pays nothing for its rule, and one below 0 pays for breaking it",
    fix="give the rules in [reward] mix weights above 0, or remove them",
)  # fmt: skip
def _weights(facts: Facts) -> Iterator[Complaint]:
    for name, weight in facts.config.reward.mix.items():
        if weight <= 0:
            yield doubtful(f"[reward] mix.{name} = {weight}", "above 0")


@check(
    "D013", "the package that tier 3 of the reward asks is installed", needs="node",
    why="the trainer's process refuses to grade without it, after all workers are up",
    fix=f"run: pip install -r {REQUIREMENTS}, or remove [reward] tier3",
)  # fmt: skip
def _tier3(facts: Facts) -> Iterator[Complaint]:
    name = facts.config.reward.tier3
    if name is None:
        raise NoMatter
    if facts.machine.version(GRADERS[name]) is None:
        yield bad(f"[reward] tier3 = {name} without the package {GRADERS[name]}", "the package")


@check(
    "D012", "the machine has cores for the grading processes", needs="node",
    why="they share the head node's cores with the trainer and its dies' processes",
    fix="lower [reward] workers",
)  # fmt: skip
def _workers(facts: Facts) -> Iterator[Complaint]:
    workers, cores = facts.config.reward.workers, facts.machine.cpus
    if workers > cores:
        yield doubtful(f"[reward] workers = {workers} on {cores} cores", f"at most {cores}")
