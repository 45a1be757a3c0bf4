"""Lines that several commands print: notes on settings, records in MLflow, where to look at them."""

import shlex
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vcppo.system.processes import is_main
from vcppo.tracking.off import NoUploader

if TYPE_CHECKING:
    from vcppo.tracking.uploader import Uploader


def print_notes(notes: Iterable[str]) -> None:
    """Print notes on resolved settings to stderr; of several processes the main one prints."""
    for note in notes if is_main() else ():
        print(f"note: {note}", file=sys.stderr)


def print_notices(uploader: "Uploader | NoUploader") -> None:
    """Print the uploader's notices."""
    for notice in uploader.notices:
        print(notice)


def tracking_line(uploader: "Uploader | NoUploader", undelivered: int) -> str:
    """Return a line on where to see a run, or on how to send its undelivered records."""
    if isinstance(uploader, NoUploader):
        return f"MLflow: off; {uploader.replay_command} would deliver this"
    if undelivered:
        replay = uploader.replay_command
        return f"{undelivered} records did not reach {uploader.tracking_uri}; they wait on disk: {replay} sends them"
    return address_line(uploader.tracking_uri)


def address_line(tracking_uri: str) -> str:
    """Return a line on where to see what reached a tracking server or file."""
    if tracking_uri.startswith("sqlite"):
        return f"MLflow: mlflow ui --backend-store-uri {shlex.quote(tracking_uri)}"
    return f"MLflow: {tracking_uri}"
