"""What a file or a folder holds, in 12 hex digits: another content at the same path is another input."""

import functools
import hashlib
from pathlib import Path

CHUNK = 1 << 20


def fingerprint(path: Path) -> str:
    """Of a file its bytes, of a folder the names and bytes of all files in it; where it lies does not count.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_dir():
        return _of_file(path).hex()[:12]
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(file.relative_to(path).as_posix().encode() + b"\0" + _of_file(file))
    return digest.hexdigest()[:12]


def _of_file(path: Path) -> bytes:
    found = path.stat()
    return _read(path.resolve(), found.st_size, found.st_mtime_ns)


@functools.cache
def _read(path: Path, size: int, changed_ns: int) -> bytes:
    """Read once in a process for as long as the file's size and time stay."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.digest()
