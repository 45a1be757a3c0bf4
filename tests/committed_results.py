"""What is committed in results/, read once by each process that runs tests, and a folder that holds a part of it."""

import functools
from pathlib import Path

from vcppo.analysis.data import Results, read_results

COMMITTED = Path(__file__).resolve().parents[1] / "results"


@functools.cache
def committed_results() -> Results:
    """All of it: some seconds, so the frames are shared, and no test may change them."""
    return read_results(COMMITTED)


def folder_of(folder: Path, *studies: str) -> Path:
    """Make a results folder of these studies alone, which is read in no time; the published numbers come by themselves.

    Returns:
        The folder.
    """
    folder.mkdir()
    for name in (*studies, "shared-draws.csv"):
        (folder / name).symlink_to(COMMITTED / name)
    return folder
