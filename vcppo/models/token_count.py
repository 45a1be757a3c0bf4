"""A count of tokens as they are written, read and trained on, for one observer of a block of code, or none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_observer: ContextVar[Callable[[int], None] | None] = ContextVar("observer of tokens", default=None)


@contextmanager
def observed_by(observer: Callable[[int], None]) -> Iterator[None]:
    """Tell `observer` of the tokens that passes and the torch engine go through within the block, as they do."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def count_tokens(count: int) -> None:
    """Tell the observer, if there is one, that so many tokens are done."""
    observer = _observer.get()
    if observer is not None:
        observer(count)
