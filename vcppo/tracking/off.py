"""Tracking that is off: nothing goes to MLflow; what runs write is on disk, and can be delivered later."""

import shlex
from pathlib import Path

OFF = "none"  # as a tracking address
MARK = "tracking.off"  # in the folder of a study that nobody wants in MLflow for now


class NoUploader:
    """In an uploader's place: it starts no thread, imports no MLflow and sends nothing."""

    notices: tuple[str, ...] = ()

    def __init__(self, out: Path, study: str) -> None:
        self.out, self.study = out, study

    @property
    def replay_command(self) -> str:
        """The command that delivers all of it."""
        return shlex.join(["vcppo", "track", "replay", self.study, "--out", str(self.out)])

    def news(self) -> list[str]:
        """None: there is no server."""
        return []

    def start(self) -> None:
        """Note that nothing is owed to MLflow."""
        (self.out / "studies" / self.study / MARK).touch()

    def close(self, timeout_s: float) -> int:
        """Return 0: nothing is owed."""
        return 0
