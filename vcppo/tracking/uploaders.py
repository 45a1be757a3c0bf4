"""What sends a study's journals to MLflow, or nothing in its place."""

from pathlib import Path
from typing import TYPE_CHECKING

from vcppo.tracking.off import OFF, NoUploader

if TYPE_CHECKING:
    from vcppo.tracking.uploader import Uploader


def uploader_to(tracking_uri: str | None, out: Path, study: str) -> "Uploader | NoUploader":
    """Return what sends a study's journals to an address; `none` is no address, and nothing is sent."""
    if tracking_uri == OFF:
        return NoUploader(out, study)
    from vcppo.tracking.uploader import Uploader

    return Uploader(out, study, tracking_uri)
