"""The file in a stage's folder that says how many tokens it has gone through, of how many at most."""

from dataclasses import asdict, dataclass
from pathlib import Path

from vcppo.errors import CheckpointError
from vcppo.system.files import read_json, write_json

NAME = "progress.json"


@dataclass(frozen=True)
class Progress:
    """Tokens written, read and trained on, and the time that took."""

    tokens: int
    expected: int  # at most: every response as long as it may be
    seconds: float

    @property
    def tokens_per_s(self) -> float | None:
        """The rate so far; None before there is one."""
        return self.tokens / self.seconds if self.tokens and self.seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Time left at this rate, at most; None before there is a rate."""
        rate = self.tokens_per_s
        return None if rate is None else max(self.expected - self.tokens, 0) / rate


def write_progress(folder: Path, *, tokens: int, expected: int, seconds: float) -> None:
    """Replace the file."""
    write_json(folder / NAME, asdict(Progress(tokens, expected, seconds)))


def read_progress(folder: Path) -> Progress | None:
    """Return what the file says; None without one, or where it is none: nothing depends on it."""
    if not (folder / NAME).exists():
        return None
    try:
        return Progress(**read_json(folder / NAME))
    except (CheckpointError, TypeError):
        return None
