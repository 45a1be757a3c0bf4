"""A small client of MLflow: runs by their tags, points in batches, files; its errors become TrackingError.

`import mlflow` takes seconds, so it happens when a store is opened and never when this module is imported.
"""

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from vcppo.errors import StudyError, TrackingError
from vcppo.system.redaction import redacted, redacted_json, remember
from vcppo.system.sqlite_files import sqlite_file
from vcppo.tracking.mlflow_database import check_database, ensure_database

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRICS_PER_CALL = 1000  # MLflow's limits of one log_batch
PARAMS_PER_CALL = 100
DATABASE_SERVERS = ("postgresql", "mysql", "mssql")  # prefixes of addresses of databases that MLflow opens directly
LONGEST_PARAM = 6000  # characters; MLflow would cut silently
LONGEST_TAG = 8000
KIND = {"mlflow.experimentKind": "custom_model_development"}  # the UI shows runs and models first, traces beside them
LOGGED_TABLES = "mlflow.loggedArtifacts"  # tag that makes the UI show a JSON file as a table

ENVIRONMENT = {  # set before the import unless the user has set them: few messages, short timeouts
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the uploader tries again, and looks first at what became of it
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}


class RefusedError(TrackingError):
    """The server is reachable and refuses this request; others may succeed."""


@dataclass(frozen=True)
class Point:
    """One value of one metric."""

    name: str
    step: int
    value: float
    time_ms: int


@dataclass
class Run:
    """A run as the store has it; methods that write to the store update it."""

    id: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: tuple[str, ...]  # names
    status: str
    started_ms: int
    deleted: bool = False  # in MLflow's bin


class MlflowStore:
    """One experiment of one tracking store.

    Args:
        artifacts: folder of files for a database without a server (a server has one of its own); None to read only.

    Raises:
        StudyError: read only, and there is no such store or experiment.
        TrackingError: from every method, if the store cannot be reached; RefusedError if it refuses.
    """

    def __init__(self, tracking_uri: str, experiment: str, artifacts: Path | None = None) -> None:
        remember(tracking_uri)
        self.tracking_uri, self.experiment = tracking_uri, experiment
        self._artifacts = artifacts
        self.notice: str | None = None  # for the user, on the state of the database
        import_mlflow()
        with self.translated():
            self._open_database()
            self.client = _connect(tracking_uri)
            self.experiment_id = self._find_experiment()

    def find(self, tags: Mapping[str, str], *, deleted: bool = False) -> list[Run]:
        """Return the runs with all of these tags, oldest first; `deleted`: those in MLflow's bin as well."""
        from mlflow.entities import ViewType

        runs: list[Run] = []
        view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        token = None
        with self.translated():
            while True:
                page = self.client.search_runs(
                    [self.experiment_id],
                    query,
                    view,
                    order_by=["attributes.start_time ASC"],
                    page_token=token,
                )
                runs += [
                    Run(
                        id=run.info.run_id,
                        tags=dict(run.data.tags),
                        params=dict(run.data.params),
                        metrics=tuple(sorted(run.data.metrics)),
                        status=run.info.status,
                        started_ms=run.info.start_time,
                        deleted=run.info.lifecycle_stage == "deleted",
                    )
                    for run in page
                ]
                token = page.token
                if not token:
                    return runs

    def create(self, name: str, tags: Mapping[str, str], *, started: float, parent: Run | None = None) -> Run:
        """Create a run in state RUNNING, below `parent`; `started` in seconds since the epoch."""
        tags = {"mlflow.parentRunId": parent.id, **tags} if parent is not None else dict(tags)
        tags |= {"mlflow.source.name": "vcppo", "mlflow.source.type": "LOCAL"}
        milliseconds = int(started * 1000)
        with self.translated():
            created = self.client.create_run(self.experiment_id, start_time=milliseconds, tags=tags, run_name=name)
        return Run(created.info.run_id, dict(tags), {}, (), "RUNNING", milliseconds)

    def log(
        self,
        run: Run,
        points: Sequence[Point] = (),
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Send points, tags that differ, and parameters that the run lacks.

        A parameter once set is never changed: MLflow would refuse.
        """
        from mlflow.entities import Metric, Param, RunTag

        texts = {name: cut(value, LONGEST_TAG) for name, value in (tags or {}).items()}
        new_tags = {name: value for name, value in texts.items() if run.tags.get(name) != value}
        texts = {name: cut(value, LONGEST_PARAM) for name, value in (params or {}).items()}
        new_params = {name: value for name, value in texts.items() if name not in run.params}
        calls = [
            *_parts("metrics", [Metric(p.name, p.value, p.time_ms, p.step) for p in points], METRICS_PER_CALL),
            *_parts("params", [Param(name, value) for name, value in new_params.items()], PARAMS_PER_CALL),
        ]
        if new_tags:
            last = calls.pop() if calls else {}
            calls.append({**last, "tags": [RunTag(name, value) for name, value in new_tags.items()]})
        with self.translated():
            for call in calls:
                self.client.log_batch(run.id, **call, synchronous=True)
        run.params |= new_params
        run.tags |= new_tags

    def write(self, run: Run, files: Mapping[str, str | bytes]) -> None:
        """Store files by their path below the run; one that is there already is replaced."""
        if not files:
            return
        with self.translated(), tempfile.TemporaryDirectory(prefix="vcppo-") as folder:
            for name, content in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                clean = redacted_json if name.endswith(".json") else redacted
                path.write_bytes(content if isinstance(content, bytes) else clean(content).encode())
            self.client.log_artifacts(run.id, folder)

    def set_status(self, run: Run, status: str, *, ended: float | None) -> None:
        """Set RUNNING, SCHEDULED, FINISHED, FAILED or KILLED; `ended` in seconds since the epoch for the last three."""
        if status == run.status:
            return
        with self.translated():
            if ended is None:
                self.client.update_run(run.id, status=status)
            else:
                self.client.set_terminated(run.id, status, int(ended * 1000))
        run.status = status

    def delete(self, run: Run) -> None:
        """Move a run to MLflow's bin, from which a user may restore it."""
        with self.translated():
            self.client.delete_run(run.id)
        run.deleted = True

    def restore(self, run: Run) -> None:
        """Bring a run back from the bin; one that is not there stays as it is."""
        if run.deleted:
            with self.translated():
                self.client.restore_run(run.id)
            run.deleted = False

    def points(self, run: Run, names: Iterable[str]) -> list[Point]:
        """Return every point of these metrics, by name and time."""

        def history(name: str) -> list[Point]:
            with self.translated():
                metrics = self.client.get_metric_history(run.id, name)
            return [Point(name, m.step, m.value, m.timestamp) for m in metrics]

        return [point for points in self._each(history, sorted(names)) for point in points]

    def tables(self, run: Run, name: str) -> dict[int, dict[str, list[Any]]]:
        """Return the columns of a table by step."""
        with tempfile.TemporaryDirectory(prefix="vcppo-") as folder, self.translated():
            paths = [file.path for file in self.client.list_artifacts(run.id, "tables")]
            if f"tables/{name}" not in paths:
                return {}
            files = sorted(Path(self.client.download_artifacts(run.id, f"tables/{name}", folder)).glob("*.json"))
            return {int(file.stem): from_split(file.read_text(encoding="utf-8")) for file in files}

    def read(self, run: Run, name: str) -> str | None:
        """Read a text file of the run, None if it has none of that name."""
        with tempfile.TemporaryDirectory(prefix="vcppo-") as folder, self.translated():
            if name not in [file.path for file in self.client.list_artifacts(run.id)]:
                return None
            return Path(self.client.download_artifacts(run.id, name, folder)).read_text(encoding="utf-8")

    def _each(self, function: Callable[[str], list[Point]], names: Sequence[str]) -> list[list[Point]]:
        """Map over names; several requests at once to a server, whose latency is mostly the network's."""
        if not self.tracking_uri.startswith("http"):
            return [function(name) for name in names]
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(function, names))

    def _open_database(self) -> None:
        """Ensure that MLflow will open a complete database, or a database server that is reachable.

        MLflow itself would leave half a database when it is stopped, and retry an unreachable server for minutes.
        """
        file = sqlite_file(self.tracking_uri)
        if file is not None and self._artifacts is not None:
            self.notice = ensure_database(file, self._artifacts)
        elif file is not None:
            if not file.exists():
                raise StudyError(f"{file}: no such file; expected the database that a study was tracked in")
            check_database(file)
        elif self.tracking_uri.startswith(DATABASE_SERVERS):
            from sqlalchemy import create_engine

            engine = create_engine(self.tracking_uri)
            with engine.connect():
                pass
            engine.dispose()

    def _find_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self.client.get_experiment_by_name(self.experiment)
        if experiment is None:
            if self._artifacts is None:
                raise StudyError(f"{redacted(self.tracking_uri)}: no experiment {self.experiment!r}")
            served = self.tracking_uri.startswith(("http", "databricks"))
            location = None if served else self._own_locations()[0].as_uri()
            try:
                made = self.client.create_experiment(self.experiment, artifact_location=location, tags=KIND)
                return str(made)
            except MlflowException:  # another process may have been a moment quicker
                experiment = self.client.get_experiment_by_name(self.experiment)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage != "active":
            raise RefusedError(
                f"{redacted(self.tracking_uri)}: experiment {self.experiment!r} was deleted; "
                f"`mlflow experiments restore -x {experiment.experiment_id}` brings it back, or name another"
            )
        self._check_location(experiment.artifact_location)
        return str(experiment.experiment_id)

    def _own_locations(self) -> list[Path]:
        """List the folders for files of runs without a server: beside an SQLite database, and this process's own."""
        file = sqlite_file(self.tracking_uri)
        beside = [] if file is None else [file.resolve().with_name("mlartifacts")]
        return [*beside, *([] if self._artifacts is None else [self._artifacts.resolve()])]

    def _check_location(self, location: str) -> None:
        """Check that the experiment's files are where this process can reach them, and are not another folder's.

        Raises:
            RefusedError: they are not.
        """
        folder = _local_folder(location)
        if folder is None:
            return
        where = f"{redacted(self.tracking_uri)}: experiment {self.experiment!r} keeps the files of its runs in {folder}"
        if self._artifacts is None:
            if not folder.is_dir():
                raise RefusedError(
                    f"{where}, which is not on this machine; export where it is, or from the study's folder"
                )
            return
        if not self.tracking_uri.startswith("http") and folder.resolve() not in self._own_locations():
            raise RefusedError(
                f"{where}, the folder of who used this database first; several folders or machines share a server, "
                f"`mlflow server --backend-store-uri ... --artifacts-destination ...`, or have a database each"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RefusedError(f"{where}, which cannot be made here ({error.strerror})") from None
        if not os.access(folder, os.W_OK):
            raise RefusedError(f"{where}, where this user may not write")

    @contextmanager
    def translated(self) -> Iterator[None]:
        with translate_errors(self.tracking_uri):
            yield


@contextmanager
def translate_errors(tracking_uri: str) -> Iterator[None]:
    """Raise errors of MLflow and the libraries below it as TrackingError, in one line."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        kind = RefusedError if 400 <= error.get_http_status_code() < 500 else TrackingError
        raise kind(f"{redacted(tracking_uri)}: {_first_line(error)}") from None
    except TrackingError:
        raise
    except (OSError, ImportError, ValueError, SQLAlchemyError) as error:  # no driver; no address of that form
        raise TrackingError(f"{redacted(tracking_uri)}: {_first_line(error)}") from None


def to_split(columns: Mapping[str, Sequence[Any]]) -> str:
    """Return columns as the JSON that MLflow's UI shows as a table (pandas' `split`).

    >>> to_split({"position": [0, 32], "n": [5, 3]})
    '{"columns":["position","n"],"data":[[0,5],[32,3]]}'
    """
    rows = list(zip(*columns.values(), strict=True))
    return json.dumps({"columns": list(columns), "data": rows}, separators=(",", ":"))


def from_split(text: str) -> dict[str, list[Any]]:
    """Return the columns of a table that `to_split` wrote."""
    table = json.loads(text)
    return {name: [row[i] for row in table["data"]] for i, name in enumerate(table["columns"])}


def _parts(kind: str, entities: list[Any], limit: int) -> list[dict[str, list[Any]]]:
    """Return arguments of log_batch calls, each within the limit."""
    return [{kind: entities[i : i + limit]} for i in range(0, len(entities), limit)]


def import_mlflow() -> None:
    """Import MLflow, set to few messages and short timeouts.

    Raises:
        TrackingError: it is not installed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow  # noqa: F401
    except ImportError as error:
        raise TrackingError(f"MLflow cannot be imported ({error}); `pip install mlflow` mends it") from None
    warnings.filterwarnings("ignore", message=".*noload", category=DeprecationWarning)  # MLflow's use of SQLAlchemy 2.1
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it logs every retry


def _connect(tracking_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    if tracking_uri.startswith("sqlite:") and "%" in tracking_uri:  # MLflow would make the escaped folder too
        tracking_uri = tracking_uri.replace("sqlite:", "sqlite+pysqlite:", 1)
    return MlflowClient(tracking_uri=tracking_uri)


def _local_folder(location: str) -> Path | None:
    """Return the folder of an artifact location, None if it is not a folder of this machine's file system.

    >>> _local_folder("file:///a/my%20runs"), _local_folder("mlflow-artifacts:/3"), _local_folder("s3://bucket/x")
    (PosixPath('/a/my runs'), None, None)
    """
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") and parts.path.startswith("/") else None


def _first_line(error: BaseException) -> str:
    lines = redacted(str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def cut(value: str, limit: int) -> str:
    value = redacted(value)
    return value if len(value) <= limit else value[: limit - 1] + "…"
