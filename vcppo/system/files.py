"""Files: text that people wrote, JSON and folders that are written whole or not at all, and locks on them."""

import codecs
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from vcppo.errors import CheckpointError

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32 LE begins as UTF-16 LE does


def open_text(path: Path, *, newline: str | None = None) -> TextIO:
    """Open a file, past its byte order mark.

    Raises:
        UnicodeError: it is UTF-16 or UTF-32, as some spreadsheets and shells write.
    """
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith(_WIDE) or b"\0" in head:
        raise UnicodeError("it is UTF-16, UTF-32 or no text; expected UTF-8: save it again as UTF-8")
    return open(path, encoding="utf-8-sig", newline=newline)


def read_text(path: Path) -> str:
    """Read all of a file.

    Raises:
        UnicodeError: as `open_text`, or it is not UTF-8.
    """
    with open_text(path) as file:
        return file.read()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write a file whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file; one that is missing or broken is a CheckpointError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from None


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary folder; it becomes `path` only when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    shutil.rmtree(path, ignore_errors=True)
    os.replace(temporary, path)


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[TextIO]:
    """Lock a file, made if it is not there; the kernel releases it with the process.

    Yields:
        The open file, to read and to write.
    Raises:
        BlockingIOError: another process holds it, and `wait` is False; the file holds what its holder wrote.
    """
    while True:
        with open(path, "a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _has_name(file, path):
                yield file
                return
        path.parent.mkdir(parents=True, exist_ok=True)  # its folder was removed while this process waited


def _has_name(file: TextIO, path: Path) -> bool:
    """Whether an open file is still what lies at the path: the lock of one that is not keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def signed_lock(path: Path) -> Iterator[None]:
    """`file_lock` without waiting, with the number of the process that holds it in the file.

    Raises:
        BlockingIOError: another process holds it, whose number is the error's `filename`.
    """
    try:
        with file_lock(path, wait=False) as file:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
    except BlockingIOError as error:
        holder = path.read_text(encoding="utf-8").strip() or "unknown"
        raise BlockingIOError(error.errno, "held by another process", holder) from None


def is_locked(path: Path) -> bool:
    """Whether a process holds the file now."""
    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def move_aside(folder: Path) -> None:
    """Rename components to components.old-1, or the next number that is free, leaving an empty folder."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    folder.rename(aside)
    folder.mkdir()


def remove_folder(folder: Path) -> None:
    """Remove a folder; killed half-way, it leaves `.NAME.removed` and nothing by the folder's own name."""
    removed = folder
    if not (folder.name.startswith(".") and folder.name.endswith(".removed")):
        removed = folder.with_name(f".{folder.name}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        folder.rename(removed)
    shutil.rmtree(removed)
