"""Tracking that is off: nothing goes to MLflow; what runs write is on disk, and can be delivered later."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vcppo.tracking.uploader import Uploader

OFF = "none"  # as a tracking address


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
        """Do nothing."""

    def close(self, timeout_s: float) -> int:
        """Return 0: nothing is owed."""
        return 0


def uploader_to(tracking_uri: str | None, out: Path, study: str) -> "Uploader | NoUploader":
    """Return what sends a study's journals to an address; `none` is no address, and nothing is sent."""
    if tracking_uri == OFF:
        return NoUploader(out, study)
    from vcppo.tracking.uploader import Uploader

    return Uploader(out, study, tracking_uri)
