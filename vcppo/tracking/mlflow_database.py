"""MLflow's SQLite database: made under another name and put in place whole, checked before MLflow opens it.

MLflow brings a new database up to date in some seventy migrations, each for itself. A process that is stopped among
them would leave a database that MLflow can neither use nor mend.
"""

import os
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vcppo.errors import TrackingError
from vcppo.system.sqlite_files import BESIDE, making, move_file_aside, sqlite_uri, whole_database

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

SETTLED_S = 5.0  # no process is making a half-made database that did not change for so long
POLL_S = 0.2
LOCK_TIMEOUT_S = 30.0  # waiting for another process's lock on the database
BOOKKEEPING = "alembic_version"  # table with the last migration
HALF_COPIED = "_alembic_tmp_"  # prefix of a table that a migration is copying to
ELSEWHERE = "move it away, or name another database with --tracking-uri"


@dataclass(frozen=True)
class Contents:
    """Contents of a database, as far as they show whether MLflow made it, and finished making it."""

    revision: str | None
    tables: frozenset[str]
    nonempty: frozenset[str]  # tables with rows that no migration wrote


def ensure_database(file: Path, artifacts: Path) -> str | None:
    """Ensure a complete MLflow database at `file`; return a notice if one half made and empty was moved aside.

    Args:
        artifacts: folder of files of runs outside vcppo's experiments.
    Raises:
        TrackingError: the file is not MLflow's, or of another version, or cannot be read; it is left as it is.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with making(file):
        contents = _settled(file)
        if contents is not None and is_whole(contents):
            return None
        notice = None
        if contents is not None and file.stat().st_size:
            refusal = refusal_of(file, contents)
            if refusal is not None:
                raise TrackingError(refusal)
            aside = move_file_aside(file, "half-made")
            notice = f"{file} was left half made and empty by whoever was stopped making it; it is now {aside.name}"
        with whole_database(file) as temporary:
            _make(temporary, artifacts)
        return notice


def check_database(file: Path) -> None:
    """Check that a database can be read.

    Raises:
        TrackingError: it cannot; the message has a remedy.
    """
    contents = _contents(file)
    if not is_whole(contents):
        empty = f"{file}: half made and empty; `vcppo track replay` makes it anew and fills it from what is on disk"
        raise TrackingError(refusal_of(file, contents) or empty)


def is_whole(contents: Contents) -> bool:
    """Return whether this version of MLflow would use it without changing its tables."""
    return contents.revision == _latest_revision() and _known_tables() <= contents.tables


def refusal_of(file: Path, contents: Contents) -> str | None:
    """Return why a database that is not whole must not be touched; None if it is MLflow's, half made and empty."""
    foreign = {
        name for name in contents.tables if name.removeprefix(HALF_COPIED) not in {BOOKKEEPING, *_known_tables()}
    }
    if foreign:
        return f"{file}: a database of something else, with tables {', '.join(sorted(foreign)[:3])}; {ELSEWHERE}"
    if not contents.nonempty:
        return None
    if contents.revision in _earlier_revisions():
        return (
            f"{file}: made by an earlier version of MLflow; stop what uses it, keep a copy, and run "
            f"`mlflow db upgrade '{sqlite_uri(file)}'`"
        )
    if contents.revision in (None, _latest_revision()):
        return f"{file}: holds data but not all of MLflow's tables; restore it from a copy, {ELSEWHERE}"
    return f"{file}: made by a later version of MLflow (revision {contents.revision}); install that one, {ELSEWHERE}"


def _settled(file: Path) -> Contents | None:
    """Return the contents once no process is making them: other programs do not take vcppo's lock."""
    while file.exists():
        contents = _contents(file)
        if is_whole(contents) or abs(time.time() - _last_change(file)) > SETTLED_S:
            return contents
        time.sleep(POLL_S)
    return None


def _last_change(file: Path) -> float:
    """Return when the database or a file beside it was written to; a journal may vanish at any moment."""
    changes = [0.0]
    for suffix in BESIDE:
        with suppress(FileNotFoundError):
            changes.append(os.stat(f"{file}{suffix}").st_mtime)
    return max(changes)


def _contents(file: Path) -> Contents:
    mode = "rw" if os.access(file, os.W_OK) else "ro"
    try:
        with closing(
            sqlite3.connect(f"{file.resolve().as_uri()}?mode={mode}", uri=True, timeout=LOCK_TIMEOUT_S)
        ) as base:
            tables = {str(name) for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            tables -= {name for name in tables if name.startswith("sqlite_")}
            rows = base.execute(f"SELECT version_num FROM {BOOKKEEPING}").fetchall() if BOOKKEEPING in tables else []
            nonempty = {name for name in tables if base.execute(_row_query(name)).fetchone() is not None}
    except sqlite3.OperationalError as error:
        raise TrackingError(f"{file}: cannot be opened ({error})") from None
    except sqlite3.DatabaseError as error:
        raise TrackingError(f"{file}: not an SQLite database, or a damaged one ({error}); {ELSEWHERE}") from None
    return Contents(str(rows[0][0]) if rows else None, frozenset(tables), frozenset(nonempty))


def _row_query(table: str) -> str:
    """Return a query for a row that no migration wrote."""
    quoted = table.replace('"', '""')
    condition = {BOOKKEEPING: "WHERE 0", "workspaces": "WHERE name != 'default'"}.get(
        table.removeprefix(HALF_COPIED), ""
    )
    return f'SELECT 1 FROM "{quoted}" {condition} LIMIT 1'


def _make(file: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(sqlite_uri(file), artifacts.resolve().as_uri()).engine.dispose()


def _known_tables() -> frozenset[str]:
    import mlflow.store.db.utils  # noqa: F401  it registers every table
    from mlflow.store.db.base_sql_model import Base

    return frozenset(Base.metadata.tables)


def _latest_revision() -> str:
    return str(_migrations().get_current_head())


def _earlier_revisions() -> set[str]:
    return {script.revision for script in _migrations().walk_revisions()} - {_latest_revision()}


def _migrations() -> "ScriptDirectory":
    import mlflow.store
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(mlflow.store.__file__).parent / "db_migrations"))
