"""The manifest of a stage's folder: its files with sizes and digests, so that a damaged result is known before its use.

`manifest.json` is written before `done.json`, which completes a stage, and names that file too:

    {"format": 1, "files": {"policy/model.safetensors": {"size": 81232, "sha256": "9f...", "mtime_ns": 1764...}, ...}}

Paths are relative to the folder, with /. A journal may have grown since; its entry is of what it began with. A folder
of an earlier version has no manifest, and nothing is known of its files. `mtime_ns` says which files need not be read
again when a manifest is renewed, and nothing when one is checked: a copy has other times.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vcppo.errors import CheckpointError
from vcppo.store.stage_progress import NAME as PROGRESS
from vcppo.system.files import sync, write_json
from vcppo.system.fingerprints import sha256_of

NAME, FORMAT = "manifest.json", 1
DONE, JOURNAL = "done.json", "journal.jsonl"
NOT_RESULTS = {NAME, DONE, PROGRESS, "lock", "state.pt"}  # at the top of a stage's folder


@dataclass(frozen=True)
class FileRecord:
    """A file as it was when it was recorded."""

    size: int  # bytes
    sha256: str  # 64 hex digits
    mtime_ns: int


class ManifestError(ValueError):
    """A manifest that cannot be read."""


def read_manifest(folder: Path) -> dict[str, FileRecord]:
    """Return a folder's files by their relative paths, none if it has no manifest.

    Raises:
        ManifestError: there is one that cannot be read.
    """
    try:
        content = json.loads((folder / NAME).read_bytes())
        return {path: FileRecord(**record) for path, record in content["files"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ManifestError(f"{NAME}: cannot be read ({type(error).__name__})") from None


def write_manifest(folder: Path, records: Mapping[str, FileRecord]) -> None:
    """Replace a folder's manifest."""
    files = {path: dataclasses.asdict(record) for path, record in records.items()}
    write_json(folder / NAME, {"format": FORMAT, "files": files})


def record_files(folder: Path, *, done: bytes | None = None) -> None:
    """Record all result files that lie in the folder; those that are recorded, and as they were, are not read again.

    Every file that is read is on the disk when this returns.

    Args:
        done: what `done.json` is about to hold.
    """
    try:
        before = read_manifest(folder)
    except ManifestError:
        before = {}
    records: dict[str, FileRecord] = {}
    for path in result_files(folder):
        name, status = path.relative_to(folder).as_posix(), path.stat()
        known = before.get(name)
        if known is not None and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
            records[name] = known
            continue
        sync(path)
        records[name] = FileRecord(status.st_size, sha256_of(path), status.st_mtime_ns)
    if done is not None:
        records[DONE] = FileRecord(len(done), hashlib.sha256(done).hexdigest(), 0)
    elif DONE in before:
        records[DONE] = before[DONE]
    write_manifest(folder, records)


def forget_files(folder: Path, paths: Iterable[str]) -> None:
    """Take files off a folder's manifest, before they are removed."""
    gone = set(paths)
    write_manifest(folder, {path: record for path, record in read_manifest(folder).items() if path not in gone})


def result_files(folder: Path) -> list[Path]:
    """Return the files of a stage's folder that a manifest lists: no locks, no temporaries, no state to resume from."""

    def counts(path: Path) -> bool:
        parts = path.relative_to(folder).parts
        if parts[0] == "requests":  # what runs want of a pretraining; they come and go
            return False
        hidden = any(part.startswith(".") for part in parts)
        other = len(parts) > 1 and (parts[0] == "verl" or parts[0].startswith("state-"))  # shards to resume from
        return path.is_file() and not hidden and not other and not (len(parts) == 1 and parts[0] in NOT_RESULTS)

    return sorted(path for path in folder.rglob("*") if counts(path))


def faults(folder: Path, *, digests: bool, of: Iterable[str] | None = None) -> list[str]:
    """Return what differs between a folder and its manifest, a line each; empty if nothing does, or if it has none.

    Args:
        digests: read every file; its size alone is looked at otherwise. A file is read once in a process.
        of: names at the top of the folder to look at; by default all.
    """
    try:
        records = read_manifest(folder)
    except ManifestError as error:
        return [str(error)]
    chosen = None if of is None else set(of)
    damage = []
    for name, record in records.items():
        if name == PROGRESS or (chosen is not None and PurePosixPath(name).parts[0] not in chosen):
            continue  # progress changes every two seconds, and was in manifests of earlier versions
        fault = _fault(folder / name, record, may_have_grown=name == JOURNAL, digest=digests)
        if fault is not None:
            damage.append(f"{name} {fault}")
    return damage


def _fault(path: Path, record: FileRecord, *, may_have_grown: bool, digest: bool) -> str | None:
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if size < record.size or (size > record.size and not may_have_grown):
        return f"has {size} bytes, was written with {record.size}"
    if not digest:
        return None
    try:
        same = sha256_of(path, record.size) == record.sha256
    except PermissionError:  # of another user: that says nothing about its bytes
        raise CheckpointError(
            f"{path}: cannot be read (Permission denied); ask its owner, or give another --out"
        ) from None
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if same else "has other bytes than were written"
