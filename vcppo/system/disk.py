"""Errors of a disk as one line: no room, no permission, read only; and the room that there is."""

import errno
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vcppo.errors import DiskError, VcppoError

REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
RESERVE_BYTES = 4 << 20  # left free beside a checkpoint: journals and records go on meanwhile
# libraries in Rust and C++ say it in words of their own
_IN_WORDS = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|Input/output error|os error (28|122|27|5)\b|"
    "file write failed"
)


def is_disk_error(error: BaseException) -> bool:
    """True if an error, or one that it came from, says that the disk is full, read only, or not this user's."""
    return _first_of_disk(error) is not None


def _first_of_disk(error: BaseException) -> BaseException | None:
    """Return the error itself, or else the one of want of room that it came from: torch reports what failed after."""
    if isinstance(error, DiskError) or (isinstance(error, OSError) and error.errno in NOT_ALLOWED):
        return error
    if isinstance(error, VcppoError):  # it says what it is
        return None
    at: BaseException | None = error
    while at is not None:
        if (isinstance(at, OSError) and at.errno in REFUSED) or _IN_WORDS.search(str(at)):
            return at
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return None


def disk_error(error: BaseException, path: Path | None = None) -> DiskError:
    """Return the same error, with its number, in one line that says where, what came, and what to do."""
    if isinstance(error, DiskError):
        return error
    error = _first_of_disk(error) or error
    number = error.errno if isinstance(error, OSError) else None
    name = error.filename if isinstance(error, OSError) and path is None else path
    where = "a file" if name is None else str(name)
    if number in NOT_ALLOWED:
        reason = os.strerror(number) if number is not None else ""
        line = f"{where}: {reason}; expected a folder of your own on a disk to write to: give another --out"
    else:
        words = _IN_WORDS.search(str(error))
        reason = os.strerror(number) if number is not None else words[0] if words is not None else str(error)
        room = "" if name is None else f"; {describe_bytes(free_bytes(Path(str(name))))} are free there"
        refuses = number == errno.EIO or reason in ("Input/output error", "os error 5")
        remedy = "look after the disk" if refuses else "make room"
        line = f"{where}: cannot be written ({reason}{room}); {remedy}, then the same command goes on"
    refused = DiskError(line)
    refused.errno = number  # for those who ask which it was
    return refused


@contextmanager
def writing(path: Path | None = None) -> Iterator[None]:
    """Turn what the disk refuses within the block or function into a DiskError that names `path`, or else its file."""
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        if not is_disk_error(error):
            raise
        raise disk_error(error, path) from error


def check_room(path: Path, needed: int) -> None:
    """Check that a file or folder of so many bytes can be written at `path`.

    Raises:
        DiskError: there is less room.
    """
    free = free_bytes(path)
    if free < needed + RESERVE_BYTES:
        raise DiskError(
            f"{path}: needs {describe_bytes(needed)} and {describe_bytes(RESERVE_BYTES)} beside it, "
            f"{describe_bytes(free)} are free there; make room, then the same command goes on"
        )


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write where `path` is, or will be."""
    for place in (path, *path.parents):
        if place.exists():
            return shutil.disk_usage(place).free
    return shutil.disk_usage(".").free


def describe_bytes(count: int) -> str:
    """Return a number of bytes as one reads it.

    >>> [describe_bytes(count) for count in (0, 999, 1_234_567, 120_000_000_000)]
    ['0 B', '999 B', '1.2 MB', '120.0 GB']
    """
    if count < 1000:
        return f"{count} B"
    power = min(int(math.log10(count)) // 3, 4)
    return f"{count / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"
