"""A real PostgreSQL server for tests that stop it, in a folder of its own; Debian's package is enough."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow_server import free_port

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
MISSING = (
    "no PostgreSQL here: apt-get install postgresql"
    if not PROGRAMS
    else "no driver: pip install psycopg2-binary"
    if importlib.util.find_spec("psycopg2") is None
    else None
)

if MISSING and os.environ.get("VCPPO_REQUIRE_POSTGRESQL"):
    raise pytest.UsageError(f"VCPPO_REQUIRE_POSTGRESQL is set; {MISSING}")


class PostgreSQL:
    """A server on this machine; root may not run one, so that for root it is run by the user postgres."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vcppo-postgresql-"))
        self.port = free_port()
        self.url = f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/postgres"
        self.process: subprocess.Popen[bytes] | None = None
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        options = ["-D", str(self.folder / "data"), "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8"]
        self._run("initdb", *options)

    def _run(self, program: str, *words: str) -> None:
        command = [*self._as_user, str(PROGRAMS[-1] / program), *words]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)

    def start(self) -> None:
        where = ["-D", str(self.folder / "data"), "-p", str(self.port), "-k", str(self.folder), "-c", "fsync=off"]
        self.process = subprocess.Popen(
            [*self._as_user, str(PROGRAMS[-1] / "postgres"), *where, "-c", "listen_addresses=127.0.0.1"],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.query("SELECT 1")
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def query(self, text: str) -> None:
        """Run a query by a connection of its own.

        Raises:
            OSError: the server cannot be reached.
        """
        import psycopg2

        try:
            connection = psycopg2.connect(host="127.0.0.1", port=self.port, user="postgres", connect_timeout=5)
        except psycopg2.OperationalError as error:
            raise OSError(str(error)) from None
        connection.autocommit = True  # a database cannot be made within a transaction
        with connection.cursor() as cursor:
            cursor.execute(text)
        connection.close()

    def database(self, name: str) -> str:
        """Make a database; return its address."""
        self.query(f"CREATE DATABASE {name}")
        return self.url.removesuffix("postgres") + name

    def drop_connections(self) -> None:
        """End every connection but ours, as a firewall or an administrator does."""
        others = "pid <> pg_backend_pid() AND backend_type = 'client backend'"
        self.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")

    def stop(self) -> None:
        """Let it answer nobody, all its connections open."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the server and its backends, each of which is a session of its own."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (self.process.pid, *map(int, children)):
            os.kill(pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.go_on()
            self.process.send_signal(signal.SIGQUIT)  # at once, as after a power cut
            self.process.wait()
            self.process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def running() -> Iterator[PostgreSQL]:
    """A server that has been started, and is removed at the end."""
    server = PostgreSQL()
    try:
        server.start()
        yield server
    finally:
        server.remove()
