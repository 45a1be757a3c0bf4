"""Seeds of a study: those of value pretraining and RL, and those of the base before them."""

from vcppo.errors import ConfigError

Numbers = int | tuple[int, ...]


def refused(numbers: Numbers) -> str | None:
    """Return what is wrong with a count or a list of seeds, None where nothing is.

    >>> refused(3), refused((7, 7))
    (None, 'expected a count of 1 or more, or a list of different seeds')
    """
    listed = numbers if isinstance(numbers, tuple) else (numbers - 1,)
    if not listed or min(listed) < 0 or len(set(listed)) < len(listed):
        return "expected a count of 1 or more, or a list of different seeds"
    return None


def chosen(
    numbers: Numbers, start: int, count: int | None, first: int | None, *, study: str, what: str
) -> tuple[int, ...]:
    """Return the seeds of a study file, or `count` of them, or a count from another first one on.

    Args:
        numbers: of the file: how many from `start` on, or which.
        what: seeds or bases, for the message.
    Raises:
        ConfigError: the file lists seeds, fewer than requested.

    >>> chosen(3, 10, None, None, study="x", what="seeds"), chosen((7, 3), 0, 2, 50, study="x", what="seeds")
    ((10, 11, 12), (50, 51))
    """
    if isinstance(numbers, tuple) and first is None:
        if count is not None and count > len(numbers):
            raise ConfigError(f"{count} {what} asked for, study {study} lists {len(numbers)}: {numbers}")
        return numbers[:count]
    default_count = len(numbers) if isinstance(numbers, tuple) else numbers
    begin = start if first is None else first
    return tuple(range(begin, begin + (default_count if count is None else count)))
