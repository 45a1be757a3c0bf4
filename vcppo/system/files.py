"""Files: text that people wrote, JSON and folders that are written whole or not at all, and locks on them.

Whole also after the power went: content is on the disk before it gets its name, and the name is there when a function
returns. Nothing else in vcppo renames a file into its place.
"""

import codecs
import errno
import fcntl
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from vcppo.errors import CheckpointError, DiskError
from vcppo.system import disk
from vcppo.system.temporaries import remove, sweep, temporary_for

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32 LE begins as UTF-16 LE does


def open_text(path: Path, *, newline: str | None = None) -> TextIO:
    """Open a file, past its byte order mark.

    Raises:
        UnicodeError: it is UTF-16 or UTF-32, as some spreadsheets and shells write.
    """
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith(WIDE_MARKS) or b"\0" in head:
        raise UnicodeError("it is UTF-16, UTF-32 or no text; expected UTF-8: save it again as UTF-8")
    return open(path, encoding="utf-8-sig", newline=newline)


def read_text(path: Path) -> str:
    """Read all of a file.

    Raises:
        UnicodeError: as `open_text`, or it is not UTF-8.
    """
    with open_text(path) as file:
        return file.read()


def write_bytes(path: Path, content: bytes, *, synced: bool = True) -> None:
    """Write a file whole or not at all; it is on the disk when this returns.

    Args:
        synced: False for one of many that cost little to make again: a process that is killed leaves it whole or not at
            all, a power cut may leave it without bytes.
    Raises:
        DiskError: the disk is full, or refuses.
    """
    with _named_when_whole(path, synced=synced) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any, *, synced: bool = True) -> None:
    """`write_bytes` of a value as JSON."""
    write_bytes(path, json_bytes(value), synced=synced)


def json_bytes(value: Any) -> bytes:
    """Return what `write_json` writes."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def json_bytes_of_sections(sections: Mapping[str, Any]) -> bytes:
    """Return `json_bytes` of the settings of one of many runs, in a third of the time: most sections are as others'."""
    texts = (
        f"  {json.dumps(name)}: {_indented(json.dumps(sections[name], sort_keys=True))}" for name in sorted(sections)
    )
    return ("{\n" + ",\n".join(texts) + "\n}\n").encode()


@functools.lru_cache(maxsize=1024)
def _indented(compact: str) -> str:
    return json.dumps(json.loads(compact), indent=2).replace("\n", "\n  ")


def read_json(path: Path) -> Any:
    """Read a JSON file; one that is missing or broken is a CheckpointError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from None


def read_json_or_move(path: Path, notice: Callable[[str], None]) -> Any:
    """Read a small JSON file, None if it is not there.

    One that is no JSON, as a machine that lost its power or a bad disk leave it, is moved aside: it counts as one that
    is not there, and `notice` receives a line.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        what = f"{path.stat().st_size} bytes that are no JSON ({one_line(error)})"
        aside = rename_aside(path, "bad")
    notice(f"{path}: {what}; moved to {aside.name}, and made again")
    return None


@contextmanager
def whole_file(path: Path, *, synced: bool = True) -> Iterator[Path]:
    """Yield a name beside `path` to write a file at; when the block ends well it is on the disk and becomes `path`.

    It is as readable as the umask allows, whatever wrote it; `synced` as in `write_bytes`. Otherwise it is removed, and
    `path` is as it was.

    Raises:
        DiskError: the disk is full, or refuses.
    """
    with _named_when_whole(path, synced=synced) as temporary:
        yield temporary
        _make_readable(temporary)


@contextmanager
def _named_when_whole(path: Path, *, synced: bool) -> Iterator[Path]:
    """`whole_file` of what is as readable as the umask allows already."""
    with disk.writing(path), _removed_unless_done(temporary_for(path)) as temporary:
        make_folder(path.parent)
        yield temporary
        if synced:
            sync(temporary)
        os.replace(temporary, path)
        if synced:
            sync(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends well, all of it is on the disk and it becomes `path`.

    Its files are as readable as the umask allows, whatever wrote them. Otherwise it is removed, and `path` is as it
    was.

    Raises:
        DiskError: the disk is full, or refuses.
    """
    with disk.writing(path), _removed_unless_done(temporary_for(path)) as temporary:
        make_folder(path.parent)
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _make_readable(file)
        sync_tree(temporary)
        if path.exists():
            before = temporary_for(path.with_name(f"{path.name}.before"))
            os.replace(path, before)
            os.replace(temporary, path)
            remove(before)
        else:
            os.replace(temporary, path)
        sync(path.parent)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder within `path`, made if need be; it goes when the block ends, with those of killed ones."""
    make_folder(path)
    sweep(path)
    folder = temporary_for(path / "scratch")
    folder.mkdir()
    try:
        yield folder
    finally:
        remove(folder)


@contextmanager
def _removed_unless_done(temporary: Path) -> Iterator[Path]:
    remove(temporary)
    try:
        yield temporary
    except BaseException:
        remove(temporary)
        raise


def make_folder(path: Path) -> None:
    """Make a folder and those above it; they are on the disk when this returns."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file's content, or a folder's list of names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot do so for a folder
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """`sync` all files and folders below a folder, and itself."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def rename_aside(path: Path, what: str) -> Path:
    """Rename cell.json to cell.json.`what`-1, or the next number that is free; return the new name."""
    number = 1
    while (aside := path.with_name(f"{path.name}.{what}-{number}")).exists():
        number += 1
    path.rename(aside)
    return aside


def one_line(error: BaseException) -> str:
    """Return an error's words in one line."""
    return " ".join(str(error).split())


def _make_readable(file: Path) -> None:
    """Let others read a file as the umask has it, though its library made it for its owner alone (safetensors)."""
    mode = file.stat().st_mode
    if (readable := mode | (0o666 & ~_umask())) != mode:
        file.chmod(readable)


def _umask() -> int:
    """This process's umask; only setting it would return it, to the surprise of other threads."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.partition("\nUmask:")[2].split()[0], 8)
    except (OSError, ValueError, IndexError):
        return 0o077


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[TextIO]:
    """Lock a file, made if it is not there; the kernel releases it with the process.

    Yields:
        The open file, to read and to write.
    Raises:
        BlockingIOError: another process holds it, and `wait` is False; the file holds what its holder wrote.
        DiskError: the file system keeps no locks.
    """
    while True:
        with open(path, "a+", encoding="utf-8") as file:
            _flock(file, path, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _has_name(file, path):
                yield file
                return
        path.parent.mkdir(parents=True, exist_ok=True)  # its folder was removed while this process waited


def _flock(file: TextIO, path: Path, how: int) -> None:
    try:
        fcntl.flock(file, how)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise DiskError(
            f"{path}: its file system keeps no locks ({error.strerror}), so two processes could write one study; "
            "expected a folder on one that does (Lustre: mounted with -o flock): give another --out"
        ) from None


def _has_name(file: TextIO, path: Path) -> bool:
    """True if an open file is still what lies at the path: the lock of one that is not keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def signed_lock(path: Path) -> Iterator[TextIO]:
    """`file_lock` without waiting, with the number of the process that holds it in the file.

    Raises:
        BlockingIOError: another process holds it, whose number is the error's `filename`.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(file_lock(path, wait=False))
        except BlockingIOError as error:
            holder = path.read_text(encoding="utf-8").strip() or "unknown"
            raise BlockingIOError(error.errno, "held by another process", holder) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        sync(path)  # for other machines too: a file that stays open is not sent to its server otherwise
        yield file


def is_locked(path: Path) -> bool:
    """True if a process holds a lock on the file now."""
    try:
        with open(path, encoding="utf-8") as file:
            _flock(file, path, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except PermissionError:  # another user's, who lets nobody look
        return False
    return False


def move_aside(folder: Path) -> None:
    """Rename components to components.old-1, or the next number that is free, leaving an empty folder."""
    rename_aside(folder, "old")
    folder.mkdir()


def remove_folder(folder: Path) -> None:
    """Remove a folder; killed half-way, it leaves `.NAME.removed` and nothing by the folder's own name."""
    removed = folder
    if not (folder.name.startswith(".") and folder.name.endswith(".removed")):
        removed = folder.with_name(f".{folder.name}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        folder.rename(removed)
    shutil.rmtree(removed)
