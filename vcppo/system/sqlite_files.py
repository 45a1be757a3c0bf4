"""SQLite databases as files: their addresses, whatever a folder is called, and new ones made whole or not at all."""

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from vcppo.errors import ConfigError
from vcppo.system.files import file_lock

BESIDE = ("", "-journal", "-wal", "-shm")  # a database and the files that SQLite writes beside it
OPTIONS = {"timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements"}  # of an address


def sqlite_uri(file: Path) -> str:
    """Return the address of a file, as SQLAlchemy reads it, and with it MLflow and Optuna.

    `%`, `?` and what cannot be printed are escaped, and nothing else. The driver is named where that was needed: MLflow
    would make the escaped folder too.

    >>> sqlite_uri(Path("/runs/a b/mlflow.db"))
    'sqlite:////runs/a b/mlflow.db'
    >>> sqlite_uri(Path("/runs/really?/mlflow.db"))
    'sqlite+pysqlite:////runs/really%3F/mlflow.db'

    Raises:
        ConfigError: no address leads to the file, for example because its name is not UTF-8.
    """
    from sqlalchemy.engine import make_url

    name = str(file)
    escaped = "".join(_escaped(c) if c in "%?" or not c.isprintable() else c for c in name)
    uri = f"{'sqlite' if escaped == name else 'sqlite+pysqlite'}:///{escaped}"
    if make_url(uri).database != name:
        raise ConfigError(f"{name!r}: an SQLite database there has no address; give a folder of another name")
    return uri


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an address; None if it is not SQLite's, in memory, or a `file:` address in SQLite's syntax.

    Raises:
        ConfigError: there is a question mark in it that begins no options.
        sqlalchemy.exc.ArgumentError: it is no address at all.
    """
    from sqlalchemy.engine import make_url

    if not uri.startswith(("sqlite:", "sqlite+")):
        return None
    url = make_url(uri)
    if "uri" in url.query or url.database in (None, "", ":memory:"):
        return None
    if "?" in uri and (not url.query or set(url.query) - OPTIONS):
        raise ConfigError(f"{uri}: what follows the question mark is no option; one in a name is written %3F")
    return Path(str(url.database))


def check_address(uri: str) -> None:
    """Refuse a malformed address, which would otherwise fail only at the first connection.

    Raises:
        ConfigError: it begins with `sqlite` and is no address of SQLite's.
    """
    from sqlalchemy.exc import ArgumentError

    try:
        sqlite_file(uri)
    except ArgumentError:
        raise ConfigError(f"{uri}: expected an address like sqlite:///relative.db or sqlite:////absolute.db") from None


@contextmanager
def making(file: Path) -> Iterator[None]:
    """Lock a file that may have to be made: others that are about to make it wait here.

    Remains of killed ones are removed.
    """
    with file_lock(file.with_name(f".{file.name}.lock")):
        for left in file.parent.glob(f".{glob.escape(file.name)}.*.new*"):
            left.unlink(missing_ok=True)
        yield


@contextmanager
def whole_database(file: Path) -> Iterator[Path]:
    """Yield a name beside the file, to make a database there; it replaces the file, synced, when the block ends well.

    The caller is `making` the file.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, file)
        _sync(file.parent)
    finally:
        for suffix in BESIDE:
            Path(f"{temporary}{suffix}").unlink(missing_ok=True)


def move_file_aside(file: Path, what: str) -> Path:
    """Rename mlflow.db to mlflow.db.`what`-1, or the next number that is free, with SQLite's files beside it."""
    number = 1
    while (aside := file.with_name(f"{file.name}.{what}-{number}")).exists():
        number += 1
    for suffix in reversed(BESIDE):
        if Path(f"{file}{suffix}").exists():
            os.rename(f"{file}{suffix}", f"{aside}{suffix}")
    return aside


def _escaped(character: str) -> str:
    return quote(character, safe="", errors="surrogateescape")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
