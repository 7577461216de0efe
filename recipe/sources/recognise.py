# SPDX-License-Identifier: Apache-2.0
"""Which upstream a directory holds, by its content: people rename directories, and a checkout has others beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from recipe.sources.errors import UsageError
from recipe.sources.examine import declared, known
from recipe.sources.pins import Pins

# So much of what is known of a package must be in a directory that is taken for it.
_SHARE = 0.5
_OURS = "from recipe.overlay import"


def marks(every: Pins, root: Path, tree: Path) -> dict[str, list[str]]:
    """Paths of files in each package that is pinned, by which it is known: those that we change, else all at hand.

    Args:
        every: what is pinned.
        root: the recipe's directory.
        tree: `upstream/`.
    """
    changed: dict[str, set[str]] = {}
    for module in [patch.target.module for patch in declared(root)]:
        package, _, below = module.partition(".")
        changed.setdefault(package, set()).add(f"{below.replace('.', '/')}.py" if below else "__init__.py")
    named: dict[str, list[str]] = {}
    for profile in every.profiles.values():
        package, _, below = profile.prelude.file.partition("/")
        changed.setdefault(package, set()).add(below)
        for pin in profile.pins:
            for package in pin.packages:
                if package not in named and package not in changed:
                    hashes = known(pin, tree, (), profile.prelude).hashes or {}
                    names = [name.partition("/")[2] for name in hashes if name.startswith(f"{package}/")]
                    named |= {package: names} if names else {}
    pinned = {package for profile in every.profiles.values() for pin in profile.pins for package in pin.packages}
    return named | {package: sorted(names) for package, names in changed.items() if package in pinned}


def found(directories: Iterable[Path], known: Mapping[str, Iterable[str]]) -> dict[str, Path]:
    """The package directories in `directories`, by package: each is one itself, or holds some.

    Args:
        directories: as the user has named them.
        known: paths of files in each package, by package.

    Raises:
        UsageError: a directory is not there or holds none of the packages, or two are the same package.
    """
    places: dict[str, Path] = {}
    for directory in directories:
        if not directory.is_dir():
            what = "a file" if directory.exists() else "not there"
            raise UsageError(f"--adopt {directory} is {what}; name a package's directory, or one that holds some")
        here = _in(directory.absolute(), known)
        if not here:
            raise UsageError(
                f"--adopt {directory}: found none of {', '.join(sorted(known))}; name the package's directory, such as "
                "/src/verl/verl, or the one that holds it"
            )
        for package, place in here:
            other = places.setdefault(package, place)
            if other.resolve() != place.resolve():
                raise UsageError(f"--adopt: {package} is in {other} and in {place}; name one of them alone")
    return places


def _in(directory: Path, known: Mapping[str, Iterable[str]]) -> list[tuple[str, Path]]:
    """The packages that a directory is or holds, with their directories."""
    package = _package(directory, known)
    if package is not None:
        return [(package, directory)]
    inside = [entry for entry in sorted(directory.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    return [(package, place) for place in inside if (package := _package(place, known)) is not None]


def _package(directory: Path, known: Mapping[str, Iterable[str]]) -> str | None:
    """The package that most of what is known of is in the directory, None where that is too little of all."""
    best, most = None, 0.0
    for package, names in known.items():
        files = [directory / name for name in names]
        # The module of a package may be the package's own file.
        there = [there_is for file in files if (there_is := _module(file)) is not None]
        share = len(there) / len(files) if files else 0.0
        if share >= _SHARE and share > most and not any(map(_is_ours, there)):
            best, most = package, share
    return best


def _module(file: Path) -> Path | None:
    """A file, or the one of the package that has its name; None where there is neither."""
    return next((one for one in (file, file.with_suffix("") / "__init__.py") if one.is_file()), None)


def _is_ours(file: Path) -> bool:
    """Whether this is a file of a `*_patches` package, which has the name of the upstream's that it mirrors."""
    return _OURS in file.read_text(encoding="utf-8", errors="replace")
