"""Disks that are full, read only, or lose their power: mounted for a test, where that is allowed."""

import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE_S = 30.0


@contextmanager
def disk_of(size: str, place: Path) -> Iterator[Path]:
    """A disk of so many bytes, as `mount` has them: 1M."""
    place.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def read_only(place: Path) -> Iterator[None]:
    """A folder that nobody can write to, root included, while the block lasts."""
    _mount("--bind", str(place), str(place))
    try:
        _mount("-o", "remount,bind,ro", str(place))
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


class PowerCut:
    """An ext4 in a file, mounted at `folder`, whose power can be cut: what was not synced by then is lost.

    `noauto_da_alloc`: ext4 does not repair renames of files that nobody synced.
    """

    SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
    NO_LOG_FLUSH = struct.pack("I", 2)

    def __init__(self, place: Path) -> None:
        self.image, self.folder = place / "disk.ext4", place / "disk"
        self.folder.mkdir()

    def make(self, size: str = "128M") -> None:
        """Make an empty one, and mount it."""
        self.image.unlink(missing_ok=True)
        subprocess.run(["truncate", "--size", size, str(self.image)], check=True)
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("no mkfs.ext4 here: apt-get install e2fsprogs")
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self.image)], check=True)
        self.mount()

    def mount(self) -> None:
        """Mount it, as after the power is back."""
        _mount("-o", "loop,noauto_da_alloc", "-t", "ext4", str(self.image), str(self.folder))

    def cut(self) -> None:
        """Cut the power: from now on every access fails."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, self.SHUTDOWN, self.NO_LOG_FLUSH)
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        """Unmount it, if it is mounted; what was killed may take some seconds to let its files go."""
        deadline = time.monotonic() + PATIENCE_S
        while os.path.ismount(self.folder):
            late = time.monotonic() > deadline
            if subprocess.run(["umount", str(self.folder)], check=late, capture_output=not late).returncode:
                time.sleep(0.2)
