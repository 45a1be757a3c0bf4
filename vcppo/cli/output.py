"""Lines that several commands print: notes on settings, what MLflow has, where to look at it."""

import shlex
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vcppo.system.processes import is_main

if TYPE_CHECKING:
    from vcppo.tracking.uploader import Uploader


def print_notes(notes: Iterable[str]) -> None:
    """Say what was decided that nobody said, beside the output; of several processes one speaks."""
    for note in notes if is_main() else ():
        print(f"note: {note}", file=sys.stderr)


def print_notices(uploader: "Uploader") -> None:
    """What the uploader found that the user should know."""
    for notice in uploader.notices:
        print(notice)


def tracking_line(tracking_uri: str, undelivered: int) -> str:
    """Where a run is to be seen, or how the records that have not got there get there."""
    if undelivered:
        return (
            f"{undelivered} records did not reach {tracking_uri}; they are kept on disk: vcppo track replay sends them"
        )
    if tracking_uri.startswith("sqlite"):
        return f"MLflow: mlflow ui --backend-store-uri {shlex.quote(tracking_uri)}"
    return f"MLflow: {tracking_uri}"
