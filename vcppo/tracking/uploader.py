"""The uploader: follows what a study's cells write to disk and sends it to MLflow, whenever MLflow accepts it.

Trainers and workers do not depend on it. A server that is away costs a run nothing, and the records that it lacks are
on disk already: `vcppo track replay` is an uploader that sends once.
"""

import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from vcppo.errors import TrackingError, VcppoError
from vcppo.store.study_folders import StudyFolder
from vcppo.system.files import file_lock, signed_lock
from vcppo.system.redaction import redacted
from vcppo.system.sqlite_files import check_address, sqlite_uri
from vcppo.tracking.ledger import Ledger, store_name
from vcppo.tracking.mlflow_client import MlflowStore, RefusedError
from vcppo.tracking.upload import StudyUpload

EVERY_S = 5.0  # between uploads: many records per call cost MLflow little more than one
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 30.0


def default_tracking_uri(out: Path) -> str:
    """Return the default database, below `out`; its files are beside it in mlartifacts/.

    Raises:
        ConfigError: `out` has a name that no address can hold.
    """
    return sqlite_uri(out.resolve() / "mlflow.db")


def default_experiment(study: str) -> str:
    """Return the name of the study's experiment."""
    return f"vcppo/{study}"


class Uploader:
    """Uploads one study, from one thread of one process at a time; a second uploader of the study waits its turn.

    Args:
        out: the folder with studies/ and cache/.
        tracking_uri: by default $MLFLOW_TRACKING_URI, else `default_tracking_uri(out)`.
        experiment: by default `default_experiment(study)`.

    Attributes:
        notices: for the user, on the state of the store, one line each.

    Raises:
        ConfigError: there is no such address.
    """

    def __init__(self, out: Path, study: str, tracking_uri: str | None = None, experiment: str | None = None) -> None:
        self.out = out
        self.tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri(out)
        check_address(self.tracking_uri)
        self.experiment = experiment or default_experiment(study)
        self.notices: list[str] = []
        self._study = StudyFolder(out, study)
        self._upload: StudyUpload | None = None
        self._connected = False
        self._lock: ExitStack | None = None  # of the file that names the process uploading the study
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._busy = threading.Lock()
        self._status = "not started"

    @property
    def status(self) -> str:
        """One line for a progress display."""
        return self._status

    def start(self) -> None:
        """Upload from a daemon thread, every few seconds, until `close`."""
        self._status = "connecting"
        self._thread = threading.Thread(target=self._upload_until_closed, name="uploader", daemon=True)
        self._thread.start()

    def send(self) -> int:
        """Send all that the store lacks now; return the number of records.

        Runs of a study that no process runs any more end in the store too.

        Raises:
            TrackingError: the server is away or refuses, or another process is uploading this study.
        """
        return self._send(closing=not self._study.is_running())

    def missing(self) -> int:
        """Count the records that are on disk only."""
        return Ledger(self._study, store_name(self.tracking_uri, self.experiment)).missing()

    def close(self, timeout_s: float = 30.0) -> int:
        """Send the last records, if the thread was started, and stop; return the number that are on disk only.

        Never raises and never takes much longer than `timeout_s`; what is left, `vcppo track replay` sends.
        """
        if self._thread is not None:
            self._stop.set()
            self._thread.join(timeout_s)
        if self._thread is None or not self._thread.is_alive():
            self._release_study()
        return self.missing()

    def _upload_until_closed(self) -> None:
        retry, away_since = FIRST_RETRY_S, ""
        wait, last_tries = 0.0, 2  # the second for a store that refused what somebody has deleted there meanwhile
        while True:
            closing = self._stop.wait(wait)
            last_tries -= closing
            try:
                self._send(closing=closing)
                wait, retry, away_since = EVERY_S, FIRST_RETRY_S, ""
                self._status = "delivered"
            except VcppoError as error:
                wait, retry = retry, min(2 * retry, LONGEST_RETRY_S)
                away_since = away_since or time.strftime("%H:%M:%S")
                self._status = f"not delivered since {away_since} ({error}), {self.missing()} records kept"
                if isinstance(error, RefusedError) and last_tries:
                    continue
            if closing:
                return

    def _send(self, *, closing: bool) -> int:
        with self._busy:
            try:
                self._lock_study()
                upload = self._connect()
                return upload.send(closing=closing)
            except VcppoError:
                self._connected = False  # look up its runs again
                raise

    def _connect(self) -> StudyUpload:
        if self._upload is None:
            self._upload = StudyUpload(self._study, Ledger(self._study, store_name(self.tracking_uri, self.experiment)))
        if not self._connected:
            with file_lock(self.out / "mlflow.lock"):  # two processes must not make one new database
                store = MlflowStore(self.tracking_uri, self.experiment, self.out / "mlartifacts")
            if store.notice is not None:
                self.notices.append(store.notice)
            self._upload.connect(store)
            self._connected = True
        return self._upload

    def _lock_study(self) -> None:
        """Lock the study until `close`, or until this process dies."""
        if self._lock is not None:
            return
        self._study.path.mkdir(parents=True, exist_ok=True)
        lock = ExitStack()
        try:
            lock.enter_context(signed_lock(self._study.path / "mlflow.lock"))
        except BlockingIOError as error:
            holder = error.filename
            owner = f"process {holder}"
            if holder == str(os.getpid()):
                owner = f"this process, which still waits for {redacted(self.tracking_uri)},"
            raise TrackingError(f"study {self._study.name} in {self.out}: {owner} uploads it") from None
        self._lock = lock

    def _release_study(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
