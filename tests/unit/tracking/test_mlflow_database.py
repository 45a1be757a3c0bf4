"""MLflow's database is whole or not there; what was left half made is known again, and nothing else is touched."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from mlflow import MlflowClient

from vcppo.errors import StudyError, TrackingError
from vcppo.tracking import mlflow_database
from vcppo.tracking.mlflow_client import MlflowStore
from vcppo.tracking.mlflow_database import check_database, ensure_database, is_whole

Break = Callable[[sqlite3.Connection], object]
INITIAL = "created by MLflow, no migration yet"
MIGRATIONS = (1, 12, 35, 60, -2)  # after so many of them somebody was stopped


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database: making one takes seconds."""
    folder = tmp_path_factory.mktemp("whole")
    assert MlflowStore(f"sqlite:///{folder}/mlflow.db", "first", folder / "artifacts").notice is None
    return folder / "mlflow.db"


@pytest.fixture(scope="module")
def half_made(tmp_path_factory: pytest.TempPathFactory) -> dict[object, Path]:
    """Databases as MLflow leaves them when it is stopped on the way, by how far it came."""
    import mlflow.store.db.utils as mlflows
    from alembic import command
    from mlflow.store.tracking.dbmodels.initial_models import Base

    folder = tmp_path_factory.mktemp("half")
    growing = folder / "growing.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{growing}")
    Base.metadata.create_all(engine)
    made: dict[object, Path] = {INITIAL: Path(shutil.copy(growing, folder / "initial.db"))}
    config = mlflows._get_alembic_config(f"sqlite:///{growing}")
    revisions = [script.revision for script in mlflow_database._migrations().walk_revisions()][::-1]
    for count in MIGRATIONS:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revisions[count])
        made[count] = Path(shutil.copy(growing, folder / f"{count}.db"))
    engine.dispose()
    return made


@pytest.fixture
def quick(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New databases are copies, and what is half made is believed at once."""
    monkeypatch.setattr(mlflow_database, "_make", lambda file, artifacts: shutil.copy(whole, file))
    monkeypatch.setattr(mlflow_database, "SETTLED_S", -1.0)


def change(file: Path, does: Break) -> None:
    with closing(sqlite3.connect(file)) as base:
        does(base)
        base.commit()


def in_the_midst_of_a_copy(base: sqlite3.Connection) -> None:
    """Between DROP and RENAME of a migration that changes a table."""
    base.execute("ALTER TABLE experiments RENAME TO _alembic_tmp_experiments")


def without_its_version(base: sqlite3.Connection) -> None:
    base.execute("DELETE FROM alembic_version")


def untouched(base: sqlite3.Connection) -> None:
    pass


def test_a_new_database_is_one_that_mlflow_uses_and_nothing_lies_beside_it(whole: Path) -> None:
    assert sorted(path.name for path in whole.parent.iterdir()) == [".mlflow.db.lock", "mlflow.db"]
    assert is_whole(mlflow_database._contents(whole))
    before = whole.read_bytes()
    assert ensure_database(whole, whole.parent / "artifacts") is None
    assert whole.read_bytes() == before
    check_database(whole)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("damage", [untouched, without_its_version, in_the_midst_of_a_copy])
@pytest.mark.parametrize("stopped", [INITIAL, *MIGRATIONS])
def test_a_half_made_database_is_moved_aside_and_told(
    stopped: object, damage: Break, half_made: dict[object, Path], tmp_path: Path
) -> None:
    if stopped == INITIAL and damage is without_its_version:
        damage = untouched  # it has none
    file = Path(shutil.copy(half_made[stopped], tmp_path / "mlflow.db"))
    change(file, damage)
    left = file.read_bytes()
    with pytest.raises(TrackingError, match=r"half made and empty; `vcppo track replay` makes it anew"):
        check_database(file)
    said = ensure_database(file, tmp_path / "artifacts")
    assert (
        said
        == f"{file} was left half made and empty by whoever was stopped making it; it is now {file.name}.half-made-1"
    )
    assert (tmp_path / "mlflow.db.half-made-1").read_bytes() == left
    assert is_whole(mlflow_database._contents(file))


@pytest.mark.usefixtures("quick")
def test_an_empty_file_is_no_loss(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    assert ensure_database(tmp_path / "mlflow.db", tmp_path / "artifacts") is None
    assert is_whole(mlflow_database._contents(tmp_path / "mlflow.db"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mlflow.db.lock", "mlflow.db"]


EARLIER = "UPDATE alembic_version SET version_num = '451aebb31d03'"
LATER = "UPDATE alembic_version SET version_num = 'ffffffffffff'"
OPTUNAS = "CREATE TABLE studies (id); INSERT INTO studies VALUES (1)"
WITH_DATA: dict[str, tuple[list[str], str]] = {
    "of an earlier version": ([EARLIER], "an earlier version of MLflow; .* `mlflow db upgrade 'sqlite:"),
    "of a later version": ([LATER], r"a later version of MLflow \(revision ffffffffffff\)"),
    "without a table": (["DROP TABLE tags"], "holds data but not all of MLflow's tables"),
    "without its version": (["DELETE FROM alembic_version"], "holds data but not all of MLflow's tables"),
    "half copied": (["ALTER TABLE runs RENAME TO _alembic_tmp_runs"], "holds data but not all of MLflow's tables"),
    "with foreign tables": (["DROP TABLE tags", *OPTUNAS.split("; ")], "of something else, with tables studies"),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", WITH_DATA)
def test_a_database_with_data_that_mlflow_cannot_use_is_told_and_left_alone(
    kind: str, whole: Path, tmp_path: Path
) -> None:
    statements, said = WITH_DATA[kind]
    file = Path(shutil.copy(whole, tmp_path / "mlflow.db"))
    change(file, lambda base: [base.execute(statement) for statement in statements])
    before = file.read_bytes()
    for look in (check_database, lambda file: ensure_database(file, tmp_path / "artifacts")):
        with pytest.raises(TrackingError, match=said):
            look(file)
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mlflow.db.lock", "mlflow.db"]


@pytest.mark.usefixtures("quick")
def test_what_is_no_database_of_mlflows_is_told_and_left_alone(tmp_path: Path) -> None:
    text, foreign, folder = tmp_path / "text.db", tmp_path / "optuna.db", tmp_path / "folder.db"
    text.write_text("not a database, but long enough to look at\n" * 50)
    change(foreign, lambda base: base.executescript(OPTUNAS))
    folder.mkdir()
    for file, said in ((text, "not an SQLite database"), (foreign, "something else"), (folder, "cannot be opened")):
        with pytest.raises(TrackingError, match=said):
            ensure_database(file, tmp_path / "artifacts")
    assert not list(tmp_path.glob("*half-made*"))


def test_a_database_that_another_program_is_making_is_waited_for(
    half_made: dict[object, Path], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mlflow ui`, started beside a first sweep, makes it in place."""
    monkeypatch.setattr(mlflow_database, "SETTLED_S", 3.0)
    file = tmp_path / "mlflow.db"

    def make() -> None:
        for stopped in (INITIAL, 12, 60):
            file.write_bytes(half_made[stopped].read_bytes())
            time.sleep(0.5)
        file.write_bytes(whole.read_bytes())

    other = threading.Thread(target=make)
    other.start()
    while not file.exists():
        time.sleep(0.01)
    assert ensure_database(file, tmp_path / "artifacts") is None
    other.join()
    assert not list(tmp_path.glob("*half-made*"))


def test_a_store_that_is_only_read_makes_nothing(tmp_path: Path, half_made: dict[object, Path]) -> None:
    with pytest.raises(StudyError, match="no such file; expected the database"):
        MlflowStore(f"sqlite:///{tmp_path}/none.db", "x")
    file = Path(shutil.copy(half_made[12], tmp_path / "mlflow.db"))
    with pytest.raises(TrackingError, match="half made and empty"):
        MlflowStore(f"sqlite:///{file}", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_database_server_that_is_away_is_noticed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow would ask it ten times, for 100 seconds."""

    def away(uri: str) -> None:
        raise sqlalchemy.exc.OperationalError("connect", {}, ConnectionRefusedError("connection refused"))

    monkeypatch.setattr(sqlalchemy, "create_engine", away)
    began = time.monotonic()
    with pytest.raises(TrackingError, match=r"postgresql://nowhere/db: .*connection refused"):
        MlflowStore("postgresql://me:secret@nowhere/db", "x", tmp_path)
    assert time.monotonic() - began < 10


KILLED = """
import sys
from pathlib import Path
from typing import Any
from vcppo.tracking.mlflow_client import MlflowStore
MlflowStore(sys.argv[1], "first", Path(sys.argv[2])).create("run", {}, started=0.0)
"""


def size_of(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


@pytest.mark.long
@pytest.mark.e2e
@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGINT])
def test_whoever_is_stopped_while_making_it_leaves_nothing_that_the_next_minds(
    with_signal: signal.Signals, tmp_path: Path
) -> None:
    """Stopped at sizes that the growing file passes: before its first table, and three times among its migrations."""
    database = tmp_path / "mlflow.db"
    command = [sys.executable, "-W", "ignore", "-c", KILLED, f"sqlite:///{database}", str(tmp_path / "files")]
    for size in (1, 60_000, 250_000, 500_000):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as one:
            while one.poll() is None and size_of(tmp_path / f".mlflow.db.{one.pid}.new") < size:
                time.sleep(0.005)
            one.send_signal(with_signal)
        assert one.returncode != 0, "it was done before it could be stopped"
        assert not database.exists()
    last = subprocess.run(command, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    with closing(sqlite3.connect(database)) as base:
        assert base.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mlflow.db.lock", "mlflow.db"]


def test_an_experiment_that_another_made_a_moment_ago_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    first = MlflowStore(uri, "shared", tmp_path)
    look, looks = MlflowClient.get_experiment_by_name, iter([True])

    def too_early(client: MlflowClient, name: str) -> Any:
        return None if next(looks, False) else look(client, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", too_early)
    assert MlflowStore(uri, "shared", tmp_path).experiment_id == first.experiment_id
