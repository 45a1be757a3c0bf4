"""MLflow's SQLite database: made beside and put in place whole, looked at before MLflow opens it.

MLflow brings a new database up to date in some seventy migrations, each for itself. Whoever is stopped among them would
leave a database that MLflow can neither use nor mend.
"""

import os
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vcppo.errors import TrackingError
from vcppo.system.sqlite_files import BESIDE, making, move_file_aside, sqlite_uri, whole_file

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

SETTLED_S = 5.0  # a half-made database that did not change for so long is being made by nobody
LOOK_S = 0.2
PATIENCE_S = 30.0  # for whoever holds the database locked
BOOKKEEPING = "alembic_version"  # says which migration was the last
HALF_COPIED = "_alembic_tmp_"  # begins the name of a table that a migration is copying to
ELSEWHERE = "move it away, or name another database with --tracking-uri"


@dataclass(frozen=True)
class Contents:
    """What a database holds, as far as it tells whether MLflow made it, and finished making it."""

    revision: str | None
    tables: frozenset[str]
    filled: frozenset[str]  # tables with rows that no migration wrote


def have_database(file: Path, artifacts: Path) -> str | None:
    """Have a whole MLflow database at `file`; if one half made and empty was in the way, a line that tells of it.

    Args:
        artifacts: where runs keep files that name no experiment of ours.
    Raises:
        TrackingError: what is there is not MLflow's, or of another version, or cannot be read; it is left as it is.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with making(file):
        found = _settled(file)
        if found is not None and is_whole(found):
            return None
        notice = None
        if found is not None and file.stat().st_size:
            complaint = complain(file, found)
            if complaint is not None:
                raise TrackingError(complaint)
            aside = move_file_aside(file, "half-made")
            notice = f"{file} was left half made and empty by whoever was stopped making it; it is now {aside.name}"
        with whole_file(file) as temporary:
            _make(temporary, artifacts)
        return notice


def check_database(file: Path) -> None:
    """Look whether a database can be read from.

    Raises:
        TrackingError: it cannot, and what to do.
    """
    found = _contents(file)
    if not is_whole(found):
        empty = f"{file}: half made and empty; `vcppo track replay` makes it anew and fills it from what is on disk"
        raise TrackingError(complain(file, found) or empty)


def is_whole(found: Contents) -> bool:
    """Whether this version of MLflow would use it without changing its tables."""
    return found.revision == _latest_revision() and _known_tables() <= found.tables


def complain(file: Path, found: Contents) -> str | None:
    """Why a database that is not whole must not be touched; None if it is MLflow's, half made, with nothing in it."""
    foreign = {name for name in found.tables if name.removeprefix(HALF_COPIED) not in {BOOKKEEPING, *_known_tables()}}
    if foreign:
        return f"{file}: a database of something else, with tables {', '.join(sorted(foreign)[:3])}; {ELSEWHERE}"
    if not found.filled:
        return None
    if found.revision in _earlier_revisions():
        return (
            f"{file}: made by an earlier version of MLflow; stop what uses it, keep a copy, and run "
            f"`mlflow db upgrade '{sqlite_uri(file)}'`"
        )
    if found.revision in (None, _latest_revision()):
        return f"{file}: holds data but not all of MLflow's tables; restore it from a copy, {ELSEWHERE}"
    return f"{file}: made by a later version of MLflow (revision {found.revision}); install that one, {ELSEWHERE}"


def _settled(file: Path) -> Contents | None:
    """What is there once nobody makes it any more: another program may be at it, which knows nothing of our lock."""
    while file.exists():
        found = _contents(file)
        if is_whole(found) or abs(time.time() - _last_change(file)) > SETTLED_S:
            return found
        time.sleep(LOOK_S)
    return None


def _last_change(file: Path) -> float:
    """When the database or what lies beside it was written to; a journal may vanish at any moment."""
    changes = [0.0]
    for suffix in BESIDE:
        with suppress(FileNotFoundError):
            changes.append(os.stat(f"{file}{suffix}").st_mtime)
    return max(changes)


def _contents(file: Path) -> Contents:
    mode = "rw" if os.access(file, os.W_OK) else "ro"
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode={mode}", uri=True, timeout=PATIENCE_S)) as base:
            tables = {str(name) for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            tables -= {name for name in tables if name.startswith("sqlite_")}
            rows = base.execute(f"SELECT version_num FROM {BOOKKEEPING}").fetchall() if BOOKKEEPING in tables else []
            filled = {name for name in tables if base.execute(_a_row_of(name)).fetchone() is not None}
    except sqlite3.OperationalError as error:
        raise TrackingError(f"{file}: cannot be opened ({error})") from None
    except sqlite3.DatabaseError as error:
        raise TrackingError(f"{file}: not an SQLite database, or a damaged one ({error}); {ELSEWHERE}") from None
    return Contents(str(rows[0][0]) if rows else None, frozenset(tables), frozenset(filled))


def _a_row_of(table: str) -> str:
    """Asks for a row that a migration has not written."""
    quoted = table.replace('"', '""')
    theirs = {BOOKKEEPING: "WHERE 0", "workspaces": "WHERE name != 'default'"}.get(table.removeprefix(HALF_COPIED), "")
    return f'SELECT 1 FROM "{quoted}" {theirs} LIMIT 1'


def _make(file: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(sqlite_uri(file), artifacts.resolve().as_uri()).engine.dispose()


def _known_tables() -> frozenset[str]:
    import mlflow.store.db.utils  # noqa: F401  it makes every table known
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
