"""Optuna's storage as a mirror of a study's folders, told from a thread of its own.

The folders are the truth. What the storage has not confirmed waits in order, is tried again for as long as the study
runs, and is told anew from the folders at the study's next opening: a storage that is away, or that never answers,
costs no cell and does not make the study deaf to signals.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import sqlalchemy.exc
from optuna.exceptions import StorageInternalError

from vcppo.errors import StudyError
from vcppo.settings.fixed import FIRST_RETRY_S, LONGEST_RETRY_S, SILENT_S
from vcppo.studies.outbox import owed_trials, write_owed
from vcppo.studies.trials import Scoreboard
from vcppo.system.redaction import redacted

T = TypeVar("T")

OF_STORAGE = (StorageInternalError, sqlalchemy.exc.SQLAlchemyError, OSError)  # errors after which it is tried again
OPENING_S = 90.0  # for the first reply, without which no study begins
POLL_S = 0.25  # between looks at whether the study has been interrupted
LONGEST_REASON = 200  # characters
GOES_ON = "cells go on, and their trials wait on disk; a search proposes nothing until it is back"


@dataclass
class _Job:
    trials: frozenset[str]  # that are owed it; none for a question
    work: Callable[[Scoreboard], Any]
    future: "Future[Any]" = field(default_factory=Future)


class TrialMirror:
    """Optuna's storage, told and asked by a study.

    Args:
        open_board: opens the storage; called in the mirror's thread.
        folder: of the study, for what the storage is owed.
        interrupted: set when nobody is to wait for a reply any more.
    Raises:
        StudyError: the storage cannot be opened, or does not answer.
        KeyboardInterrupt: the study was interrupted before it did.
    """

    def __init__(
        self, open_board: Callable[[], Scoreboard], folder: Path, interrupted: threading.Event | None = None
    ) -> None:
        self._open_board, self._folder = open_board, folder
        self._interrupted = interrupted or threading.Event()
        self._jobs: deque[_Job] = deque()
        self._changed, self._writing = threading.Condition(), threading.Lock()
        self._closing = self._given_up = False
        self._retry_now = threading.Event()
        self._news: SimpleQueue[str] = SimpleQueue()
        self._away = self._said_silent = False
        self._asked_at: float | None = None  # when it was asked something that it has not answered
        self._outbox = bool(owed_trials(folder))
        self._failure: BaseException | None = None
        opened: Future[None] = Future()
        threading.Thread(target=self._serve, args=(opened,), name="optuna", daemon=True).start()
        self.wait(opened, OPENING_S)

    def tell(self, trials: Iterable[str], work: Callable[[Scoreboard], object]) -> None:
        """Have something done about trials, after all that was told before, however long that takes."""
        self._put(_Job(frozenset(trials), work))

    def ask(self, question: Callable[[Scoreboard], T]) -> "Future[T]":
        """Ask something, after all that was told before."""
        job = _Job(frozenset(), question)
        self._put(job)
        return job.future

    def wait(self, future: "Future[T]", timeout_s: float = OPENING_S) -> T:
        """Return the reply.

        Raises:
            StudyError: it does not come in time.
            KeyboardInterrupt: the study is interrupted before it comes.
        """
        deadline = time.monotonic() + timeout_s
        while not future.done():
            if self._interrupted.is_set():
                raise KeyboardInterrupt
            if (left := deadline - time.monotonic()) <= 0:
                raise StudyError(
                    f"the storage of the study in {self._folder} has not answered for {timeout_s:.0f} s; what its "
                    "cells did is safe there: the same command goes on when it is back"
                )
            wait_for([future], min(POLL_S, left))
        return future.result()

    def news(self) -> list[str]:
        """Return lines for the user, each once: the storage is away, does not answer, is back."""
        asked_at = self._asked_at
        if asked_at is not None and not self._said_silent and time.monotonic() - asked_at > SILENT_S:
            self._said_silent = True
            self._write_outbox()
            self._news.put(f"Optuna's storage has not answered for {SILENT_S:.0f} s; {GOES_ON}")
        return [self._news.get() for _ in range(self._news.qsize())]

    def close(self, timeout_s: float) -> int:
        """Tell the rest, and stop; the number of trials that only the folders have."""
        with self._changed:
            self._closing = True
            self._retry_now.set()
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._owed(), timeout_s)
            self._given_up = True
            self._changed.notify_all()
        self._write_outbox()
        if self._failure is not None:
            raise self._failure
        return len(self._owed())

    def _put(self, job: _Job) -> None:
        if self._failure is not None:
            raise self._failure
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()

    def _owed(self) -> set[str]:
        return set().union(*(job.trials for job in list(self._jobs)))

    def _write_outbox(self) -> None:
        with self._writing, suppress(OSError):  # on a full disk the folders know it all the same
            owed = self._owed()
            if owed or self._outbox:
                write_owed(self._folder, owed)
                self._outbox = bool(owed)

    # In the mirror's thread

    def _serve(self, opened: "Future[None]") -> None:
        try:
            self._board = self._open_board()
        except BaseException as error:  # noqa: BLE001 -- for who waits for it
            opened.set_exception(error)
            return
        opened.set_result(None)
        while (job := self._next()) is not None:
            self._do(job)
            if self._given_up:
                return
            with self._changed:
                self._jobs.popleft()
                self._changed.notify_all()
            if self._outbox and not self._owed():
                self._write_outbox()

    def _next(self) -> _Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closing)
            if self._closing:  # nobody waits for replies any more
                self._jobs = deque(job for job in self._jobs if job.trials)
                self._changed.notify_all()
            return self._jobs[0] if self._jobs and not self._given_up else None

    def _do(self, job: _Job) -> None:
        retry = FIRST_RETRY_S
        while not self._given_up:
            self._asked_at = time.monotonic()
            try:
                if self._away:
                    self._board.refresh()  # a reply may have been lost on its way
                job.future.set_result(job.work(self._board))
            except OF_STORAGE as error:
                self._went_away(error)
            except BaseException as error:  # noqa: BLE001 -- a fault of ours, for the study's thread
                self._failure = error
                job.future.set_exception(error)
                return
            else:
                self._came_back()
                return
            finally:
                self._asked_at = None
            self._retry_now.wait(retry)
            retry = min(2 * retry, LONGEST_RETRY_S) if not self._closing else FIRST_RETRY_S
            if self._closing:
                time.sleep(FIRST_RETRY_S)

    def _went_away(self, error: Exception) -> None:
        if not self._away:
            reason = redacted(" ".join(str(error).split()))[:LONGEST_REASON]
            self._news.put(f"Optuna's storage is away ({reason}); {GOES_ON}")
        self._away = True
        self._write_outbox()

    def _came_back(self) -> None:
        if self._away or self._said_silent:
            self._news.put("Optuna's storage is back")
        self._away = self._said_silent = False
