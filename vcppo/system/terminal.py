"""Where progress is shown: standard error, as a live picture on a terminal, as a line now and then elsewhere."""

from collections.abc import Callable

from rich.console import Console

SUMMARY_S = 30.0  # seconds between summary lines where there is no terminal


def progress_console() -> Console:
    """Standard error, its lines neither wrapped nor coloured by guesswork."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


class SummaryTimer:
    """Says when the next summary line is due, SUMMARY_S after the last."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = clock()

    def is_due(self) -> bool:
        """Whether it is time; if so, the next is due after as long again."""
        if self._clock() - self._last < SUMMARY_S:
            return False
        self._last = self._clock()
        return True


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(8.2), duration(200), duration(7300)
    ('8 s', '3 min 20 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
