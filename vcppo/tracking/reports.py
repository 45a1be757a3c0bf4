"""A finished report as a run of MLflow: its numbers as metrics, what it says as tags, its files as artefacts."""

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vcppo.errors import ConfigError
from vcppo.system.redaction import redacted
from vcppo.system.sqlite_files import check_address
from vcppo.tracking.mlflow_client import MlflowStore, Point
from vcppo.tracking.mlflow_entities import user_name
from vcppo.tracking.uploader import default_tracking_uri

_REFUSED = re.compile(r"[^\w\-. :/]")  # in names of metrics and tags


@dataclass(frozen=True)
class LoggedReport:
    """Contents of a run: metrics, params, tags and files."""

    name: str
    began: float  # seconds since the epoch
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    files: tuple[Path, ...]


def report_address(uri: str | None, out: Path) -> str:
    """The address of MLflow: `uri`, else $MLFLOW_TRACKING_URI, else a database in `out`.

    Raises:
        ConfigError: it is no address, or a folder such as ./mlruns, which MLflow takes no runs into any more.
    """
    address = uri or os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri(out)
    check_address(address)
    if address.startswith("file:") or not re.match(r"[a-z][a-z0-9+.\-]*:|databricks$", address):
        raise ConfigError(
            f"--tracking-uri {redacted(address)}: a folder, and MLflow takes no runs into folders any more; expected a "
            "server, such as http://host:5000, or a database, such as sqlite:///mlflow.db"
        )
    return address


def log_report(report: LoggedReport, address: str, *, experiment: str, artifacts: Path) -> str:
    """Log a report to a new run, which is FINISHED once it has everything; return the run's id.

    Args:
        artifacts: folder of its files, for a database without a server.
    Raises:
        TrackingError: the store cannot be reached, or refuses. OSError: a file cannot be read.
    """
    files = {path.name: path.read_bytes() for path in report.files}
    store = MlflowStore(address, experiment, artifacts)
    tags = {"vcppo.kind": "report", "mlflow.user": user_name()}
    run = store.create(report.name, tags, started=report.began)
    now = int(1000 * time.time())
    points = [Point(_REFUSED.sub("_", name), 0, value, now) for name, value in report.metrics.items()]
    said = {_REFUSED.sub("_", name): text for name, text in report.tags.items()}
    store.log(run, points, params=report.params, tags=said)
    store.write(run, files)
    store.set_status(run, "FINISHED", ended=time.time())
    return run.id
