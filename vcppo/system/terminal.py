"""Progress on standard error: as a live picture on a terminal, as a line now and then elsewhere."""

from collections.abc import Callable

from rich.console import Console

SUMMARY_S = 30.0  # seconds between summary lines where there is no terminal


def progress_console() -> Console:
    """Console on standard error, its lines neither wrapped nor coloured by guesswork."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


class SummaryTimer:
    """Timer of summary lines, SUMMARY_S apart."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = clock()

    def is_due(self) -> bool:
        """True if a line is due; if so, the next is SUMMARY_S later."""
        if self._clock() - self._last < SUMMARY_S:
            return False
        self._last = self._clock()
        return True


def duration(seconds: float) -> str:
    """Format seconds for people.

    >>> duration(8.2), duration(200), duration(7300), duration(200_000)
    ('8 s', '3 min 20 s', '2 h 1 min', '2 d 7 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
