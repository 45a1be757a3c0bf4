"""The uploader: follows what a study's cells write to disk and sends it to MLflow, whenever MLflow accepts it.

Trainers and workers do not depend on it. A server that is away costs a run nothing, and the records that it lacks are
on disk already: `vcppo track replay` is an uploader that sends once.
"""

import os
import shlex
import threading
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from queue import SimpleQueue

from vcppo.errors import TrackingError, VcppoError
from vcppo.settings.fixed import FIRST_RETRY_S, LONGEST_RETRY_S, SILENT_S
from vcppo.store.study_folders import StudyFolder
from vcppo.system.files import file_lock, signed_lock
from vcppo.system.processes import is_folder_locked
from vcppo.system.redaction import redacted, without_credentials
from vcppo.system.sqlite_files import check_address, sqlite_file, sqlite_uri
from vcppo.tracking.ledger import Ledger, store_name
from vcppo.tracking.mlflow_client import MlflowStore, import_mlflow
from vcppo.tracking.off import MARK
from vcppo.tracking.upload import StudyUpload

EVERY_S = 5.0  # between uploads: many records per call cost MLflow little more than one
LAST_TRIES = 5  # at the end, of a store that was there until then: it loses a reply, or lacks what somebody deleted
GOES_ON = "runs go on, and their records wait on disk"


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
        notices: for the user, on the state of the store, one line each; at the end. `news` has those of the moment.

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
        self._news: SimpleQueue[str] = SimpleQueue()
        self._asked_at: float | None = None  # when the store was asked something that it has not replied to
        self._said_silent = False

    @property
    def status(self) -> str:
        """One line for a progress display."""
        return self._status

    @property
    def replay_command(self) -> str:
        """The command that sends what is left, to this store; a password in its address is not repeated."""
        words = ["vcppo", "track", "replay", self._study.name, "--out", str(self.out)]
        address = without_credentials(self.tracking_uri)
        if address != self.tracking_uri:
            return f"{shlex.join(words)} (with MLFLOW_TRACKING_URI as the address of {address})"
        return shlex.join(words if address == default_tracking_uri(self.out) else [*words, "--tracking-uri", address])

    def news(self) -> list[str]:
        """Return lines for the user, each once: the store is away, does not reply, is back."""
        asked_at = self._asked_at
        if asked_at is not None and not self._said_silent and time.monotonic() - asked_at > SILENT_S:
            self._said_silent = True
            self._news.put(f"MLflow at {redacted(self.tracking_uri)} has not replied for {SILENT_S:.0f} s; {GOES_ON}")
        return [self._news.get() for _ in range(self._news.qsize())]

    def start(self) -> None:
        """Upload from a daemon thread, every few seconds, until `close`."""
        self._status = "connecting"
        self._switch_on()
        self._thread = threading.Thread(target=self._upload_until_closed, name="uploader", daemon=True)
        self._thread.start()

    def send(self) -> int:
        """Send all that the store lacks now; return the number of records.

        Runs of a study that no process runs any more end in the store too.

        Raises:
            TrackingError: the server is away or refuses, or another process is uploading this study.
        """
        self._switch_on()
        return self._send(closing=not is_folder_locked(self._study.path))

    def _switch_on(self) -> None:
        """Let `vcppo status` count what the store lacks, whatever an earlier call wanted."""
        if (mark := self._study.path / MARK).exists():  # else nothing is written: a folder may be read only
            mark.unlink(missing_ok=True)

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
        wait, last_tries = 0.0, LAST_TRIES
        while True:
            if closing := self._stop.wait(wait):
                last_tries = 0 if away_since and last_tries == LAST_TRIES else last_tries - 1
            try:
                self._send(closing=closing)
                if away_since or self._said_silent:
                    self._news.put(f"MLflow at {redacted(self.tracking_uri)} is back, and has everything")
                wait, retry, away_since, self._said_silent = EVERY_S, FIRST_RETRY_S, "", False
                self._status = "delivered"
            except (VcppoError, OSError) as error:  # the disk's own too: a full /tmp, a file that has just gone
                wait, retry = retry, min(2 * retry, LONGEST_RETRY_S)
                if not away_since:
                    self._news.put(f"MLflow has not received what is new ({error}); {GOES_ON}")
                away_since = away_since or time.strftime("%H:%M:%S")
                self._status = f"not delivered since {away_since} ({error}), {self.missing()} records kept"
                if closing and last_tries:
                    time.sleep(FIRST_RETRY_S)
                    continue
            if closing:
                return

    def _send(self, *, closing: bool) -> int:
        with self._busy:
            try:
                self._lock_study()
                import_mlflow()  # seconds, which are not the server's
                if sqlite_file(self.tracking_uri) is None:
                    self._asked_at = time.monotonic()
                upload = self._connect()
                return upload.send(closing=closing, on_reply=self._replied)
            except (VcppoError, OSError):
                self._connected = False  # look up its runs again
                raise
            finally:
                self._asked_at = None

    def _replied(self) -> None:
        if self._asked_at is not None:
            self._asked_at = time.monotonic()

    def _connect(self) -> StudyUpload:
        if self._upload is None:
            self._upload = StudyUpload(self._study, Ledger(self._study, store_name(self.tracking_uri, self.experiment)))
        if not self._connected:
            file = sqlite_file(self.tracking_uri)
            # Two processes must not make one new database. Of a server nobody waits for another's reply.
            with nullcontext() if file is None else file_lock(self.out / "mlflow.lock"):
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
            where = f"study {self._study.name} in {self.out}"
            raise TrackingError(f"{where}: {owner} uploads it, or waits for its server to reply") from None
        self._lock = lock

    def _release_study(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
