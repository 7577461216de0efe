# SPDX-License-Identifier: Apache-2.0
"""Where the pages lead: links, anchors within and between pages, and files that are named."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.pages import PAGES, REPO
from tests.docs.translation import original

_LIST = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
TRACKED = subprocess.run(_LIST, cwd=REPO, capture_output=True, text=True, check=True).stdout.splitlines()
TOPS = {name.partition("/")[0] for name in TRACKED if "/" in name}
NAMES = {Path(name).name for name in TRACKED}
# What a run or a reader makes.
MADE = {"run.toml", "mine.toml", "two.toml"}
# These pages also name files of upstreams and published recipes, by the ends of their paths; what of it is ours.
OF_UPSTREAMS = ("docs/PLAN.md", "docs/FROM_OTHER_RECIPES.md")
ITS_OWN = ("tests", "configs", "scripts", "recipe/plan")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: str) -> None:
    for path, anchor in pages.links(page):
        target = ((REPO / page).parent / path).resolve() if path else REPO / page
        assert target.exists(), f"{page}: {path}"
        if anchor:
            assert anchor in pages.headings(str(target.relative_to(REPO))), f"{page}: {path}#{anchor}"


def test_the_readmes_lead_to_every_page() -> None:
    """A page that nothing leads to is not found: each is a link of a README, or of a page that is."""
    reached, new = set(), {"README.md"}
    while new:
        reached |= new
        new = {
            str(((REPO / page).parent / path).resolve().relative_to(REPO))
            for page in reached
            for path, _ in pages.links(page)
            if path.endswith(".md")
        } - reached
    assert set(PAGES) - reached <= {"npu_sim/README.md"}


@pytest.mark.parametrize("page", PAGES)
def test_every_file_of_ours_that_is_named_is_there(page: str) -> None:
    for span in pages.spans(page):
        word = span.split()[0]
        if word in pages.files(page):
            continue
        if re.fullmatch(r"[\w./-]+", word) and "/" in word and word.partition("/")[0] in TOPS:
            ours = original(page) not in OF_UPSTREAMS or word.startswith(ITS_OWN)
            assert not ours or (REPO / word).exists(), f"{page}: {word}"
        elif (
            re.fullmatch(r"\w+\.(?:py|sh|md|toml|bats)", word)
            and word not in MADE
            and original(page) not in OF_UPSTREAMS
        ):
            assert word in NAMES, f"{page}: {word}"


@pytest.mark.parametrize("drawing", sorted(REPO.glob("docs/*.svg")), ids=lambda file: file.name)
def test_every_directory_that_a_drawing_names_is_there(drawing: Path) -> None:
    for word in re.findall(r"[\w.]+(?:/[\w.]*)+", re.sub(r"<[^>]*>", " ", drawing.read_text(encoding="utf-8"))):
        assert word.partition("/")[0] not in TOPS or (REPO / word).exists(), f"{drawing.name}: {word}"


@pytest.mark.parametrize("page", PAGES)
def test_every_module_of_ours_that_is_named_is_there(page: str) -> None:
    for dotted in re.findall(r"\brecipe(?:\.\w+)+", " ".join([*pages.spans(page), *pages.commands(page)])):
        parts = dotted.split(".")
        files = [REPO.joinpath(*parts[:n]).with_suffix(".py") for n in range(len(parts), 1, -1)]
        files += [REPO.joinpath(*parts[:n], "__init__.py") for n in range(len(parts), 1, -1)]
        file = next((one for one in files if one.is_file()), None)
        assert file is not None, f"{page}: {dotted}"
        if file.stem != parts[-1] and file.parent.name != parts[-1]:
            declared = rf"^(?:def |class )?{parts[-1]}\b"
            assert re.search(declared, file.read_text(encoding="utf-8"), re.MULTILINE), f"{page}: {dotted}"
