"""Digests of files, folders and checkpoints, in hex digits: another content at the same path is another input."""

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from vcppo.errors import CheckpointError

CHUNK = 1 << 20
READ_WHOLE = {".json", ".jinja", ".txt", ".model", ".tiktoken"}  # configurations and tokenizers
OF_A_TENSOR = 4096  # bytes read of each; training moves every one


def fingerprint(path: Path) -> str:
    """Digest a file's bytes, or the names and bytes of all files in a folder; its path does not count.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_dir():
        return _of_file(path).hex()[:12]
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(file.relative_to(path).as_posix().encode() + b"\0" + _of_file(file))
    return digest.hexdigest()[:12]


def sha256_of(path: Path, length: int | None = None) -> str:
    """Digest a file's bytes, or its first `length`; 64 hex digits.

    Raises:
        OSError: it cannot be read.
    """
    return _of_file(path, length).hex()


def _of_file(path: Path, length: int | None = None) -> bytes:
    status = path.stat()
    size = status.st_size if length is None else length
    return _read(path.resolve(), size, status.st_size, status.st_mtime_ns)


@functools.cache
def _read(path: Path, length: int, size: int, changed_ns: int) -> bytes:
    """Read once in a process for as long as the file's size and time stay."""
    digest, left = hashlib.sha256(), length
    with open(path, "rb") as file:
        while left and (chunk := file.read(min(CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.digest()


@dataclass(frozen=True)
class Checkpoint:
    """A policy in transformers format, located but not loaded."""

    name: str  # as given
    source: Path | str  # a folder, or a hub's name
    fingerprint: str  # 64 hex digits of a folder's contents, or the hub's commit


def find_checkpoint(name: str) -> Checkpoint:
    """Locate the folder of this name; if there is none and it has the form `owner/model`, the hub's model of that name.

    Raises:
        CheckpointError: neither is there.
    """
    folder = Path(name).expanduser()
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{name}: no config.json there, expected a folder in transformers format")
        return Checkpoint(name, folder, fingerprint_of_checkpoint(folder))
    from transformers.utils import cached_file  # seconds to import

    try:
        config = cached_file(name, "config.json")
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise CheckpointError(f"{name}: no such folder, and nothing of this name from the hub ({reason})") from None
    return Checkpoint(name, name, Path(str(config)).parent.name)


def content_of(name: str | None) -> str | None:
    """Content behind a setting that names a checkpoint: a folder's fingerprint, wherever it lies, or a hub's name."""
    if name is None or not (Path(name).expanduser() / "config.json").is_file():
        return name
    return fingerprint_of_checkpoint(Path(name).expanduser())


def fingerprint_of_checkpoint(folder: Path) -> str:
    """SHA-256 of configuration and tokenizer files, and of a sample of each tensor; no more is read of the weights.

    A file of weights counts with its size, its header (names, types, shapes) and the first bytes of every tensor.
    Files of other kinds do not count.

    Raises:
        CheckpointError: a file cannot be read.
    """
    whole = hashlib.sha256()
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix in READ_WHOLE:
                _add(whole, path.name, path.read_bytes())
            elif path.suffix == ".safetensors":
                _add(whole, path.name, _weights(path))
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read ({error})") from None
    return whole.hexdigest()


def _weights(path: Path) -> bytes:
    """Digest a file of weights. One that is no such file has one too: loading will report what is wrong with it."""
    digest = hashlib.sha256(str(path.stat().st_size).encode())
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length + 8 > path.stat().st_size:
            return digest.digest()
        header = file.read(length)
        digest.update(header)
        try:
            tensors = [entry for name, entry in json.loads(header).items() if name != "__metadata__"]
            starts = sorted(int(entry["data_offsets"][0]) for entry in tensors)
        except (ValueError, AttributeError, KeyError, TypeError, IndexError):
            return digest.digest()
        for start in starts:
            file.seek(8 + length + start)
            digest.update(file.read(OF_A_TENSOR))
    return digest.digest()


def _add(whole: "hashlib._Hash", name: str, content: bytes) -> None:
    whole.update(f"{name}\0{len(content)}\0".encode())
    whole.update(content)
