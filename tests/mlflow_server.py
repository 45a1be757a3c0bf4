"""A real `mlflow server` for tests that kill it."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A real `mlflow server` on this machine."""

    def __init__(self, folder: Path, store: str | None = None) -> None:
        self.port, self.folder = free_port(), folder
        self.store = store or f"sqlite:///{folder}/server.db"
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[Any] | None = None

    def start(self) -> None:
        """Start it, and wait until it replies."""
        self.launch()
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError(f"mlflow server did not come up at {self.uri}")

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        options = ["--backend-store-uri", self.store, "--artifacts-destination", str(self.folder)]
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1", *options]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.process = subprocess.Popen(command, cwd=self.folder, env=environment, start_new_session=True, **quiet)

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
