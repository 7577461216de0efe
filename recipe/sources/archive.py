# SPDX-License-Identifier: Apache-2.0
"""Read the wanted files of a wheel or an sdist into memory; nothing is unpacked to disk here.

Archives are foreign: a member with an absolute path, a `..`, or a link among the wanted files is refused, and so is
one that unpacks to more than MAX_BYTES.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from email.parser import BytesHeaderParser
from pathlib import Path, PurePosixPath

from recipe.sources.errors import SourcesError
from recipe.sources.pins import Pin

Files = dict[str, bytes]
MAX_BYTES = 512 << 20
COMPILED = (".so", ".pyd", ".dll", ".dylib", ".pyc", ".pyo", ".o", ".a")
# RECORD lists the compiled files that are left out here; tools read METADATA and entry_points.txt.
_METADATA = ("METADATA", "entry_points.txt", "top_level.txt")


def read_wheel(file: Path, pin: Pin) -> Files:
    """Packages and metadata of a wheel, by their path under `upstream/`."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = _checked(file, ((info.filename, info.file_size) for info in archive.infolist()))
            files: Files = {}
            for name in members:
                parts = PurePosixPath(name).parts
                if name.endswith("/") or not parts:
                    continue
                if parts[0] in pin.packages:
                    if not name.endswith(COMPILED):
                        info = archive.getinfo(name)
                        if (info.external_attr >> 16) & 0o170000 == 0o120000:
                            raise SourcesError(f"{file.name}: {name} is a link; refused")
                        files[name] = archive.read(name)
                elif parts[0].endswith(".dist-info") and (parts[1] in _METADATA or is_licence(parts)):
                    files["/".join((pin.dist_info, *parts[1:]))] = archive.read(name)
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
        raise SourcesError(f"{file}: not a readable wheel: {error}") from None
    return files


def read_sdist(file: Path, pin: Pin) -> Files:
    """Packages and metadata of an sdist, by their path under `upstream/`; metadata from PKG-INFO and the egg-info."""
    try:
        with tarfile.open(file, mode="r:*") as archive:
            members = archive.getmembers()
            _checked(file, ((member.name, member.size) for member in members))
            files: Files = {}
            for member in members:
                parts = PurePosixPath(member.name).parts[1:]
                if not parts or member.isdir():
                    continue
                to = _sdist_place(parts, pin)
                if to is None or to.endswith(COMPILED):
                    continue
                if not member.isfile():
                    raise SourcesError(f"{file.name}: {member.name} is a link or a special file; refused")
                stream = archive.extractfile(member)
                assert stream is not None
                files[to] = stream.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise SourcesError(f"{file}: not a readable archive: {reason}") from None
    return files


def read_file(file: Path, pin: Pin, path: str) -> bytes | None:
    """One file of a package in a wheel or an sdist, None when it has no such file; reads no further than needed."""
    if pin.is_wheel:
        with zipfile.ZipFile(file) as wheel:
            return wheel.read(path) if path in wheel.NameToInfo else None
    with tarfile.open(file, mode="r|*") as sdist:
        for member in sdist:
            if member.isfile() and member.name.partition("/")[2] == path:
                stream = sdist.extractfile(member)
                return stream.read() if stream else None
    return None


def metadata_of(pin: Pin) -> Files:
    """The installed metadata of a pin from git, as a build would have written it."""
    files = {f"{pin.dist_info}/METADATA": f"Metadata-Version: 2.1\nName: {pin.name}\nVersion: {pin.version}\n".encode()}
    if pin.entry_points:
        files[f"{pin.dist_info}/entry_points.txt"] = "\n".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
            for group, points in pin.entry_points.items()
        ).encode()
    return files


def _sdist_place(parts: tuple[str, ...], pin: Pin) -> str | None:
    """Where a member of an sdist goes under `upstream/`, None when it is not wanted."""
    if parts[0] in pin.packages:
        return "/".join(parts)
    if parts == ("PKG-INFO",):
        return f"{pin.dist_info}/METADATA"
    if len(parts) == 2 and parts[0].endswith(".egg-info") and parts[1] in _METADATA:
        return f"{pin.dist_info}/{parts[1]}"
    if len(parts) == 1 and is_licence(parts):
        return f"{pin.dist_info}/licenses/{parts[0]}"
    return None


def is_licence(parts: tuple[str, ...]) -> bool:
    """Whether a path, in parts, is a licence text or a notice."""
    return "licenses" in parts or parts[-1].upper().startswith(("LICENSE", "LICENCE", "NOTICE"))


def _checked(file: Path, members: Iterator[tuple[str, int]]) -> list[str]:
    """All member names, after a look at every one of them."""
    names, total = [], 0
    for name, size in members:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise SourcesError(f"{file.name}: member {name!r} would leave the directory; refused")
        total += size
        if total > MAX_BYTES:
            raise SourcesError(f"{file.name} unpacks to more than {MAX_BYTES >> 20} MiB; refused")
        names.append(name)
    return names


def check_version(files: Files, pin: Pin) -> None:
    """The archive's own metadata names the pinned project and version, and every package is there."""
    metadata = BytesHeaderParser().parsebytes(files.get(f"{pin.dist_info}/METADATA", b""))
    named = (str(metadata["Name"]).replace("_", "-").lower(), str(metadata["Version"]))
    if named != (pin.name, pin.version):
        expected = f"{pin.name} {pin.version}"
        raise SourcesError(f"{pin.origin}: metadata says {' '.join(named)}, expected {expected}")
    for package in pin.packages:
        if not any(name.startswith(package + "/") for name in files):
            raise SourcesError(f"{pin.origin} has no package directory {package}")
