"""A study whose processes, servers, network and disk are disturbed at random, and its command given again."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from disks import PowerCut
from torture.kinds import Case, Extent, Result
from torture.study_runs import Studies, studies
from torture.tracking_proxy import TIMEOUT_S, faulty

KILLS = 6  # a round
KILLS_OF_WORKERS = 2  # of one command: a cell is given up after three deaths of its worker
PROXY_EVERY, PROXY_FAULTS = 15, 30  # one request in so many has a fault, and so many a round

Round = Callable[[Studies, random.Random], Result]


def rounds(kind: str, one: Round) -> Callable[[Path, Extent], Iterator[Case]]:
    """Return the cases of a kind that is drawn at random; all of them share servers and an undisturbed study."""

    def cases(place: Path, extent: Extent) -> Iterator[Case]:
        with studies(place) as every:
            for name, draw in extent.draws(kind):
                yield name, lambda draw=draw: one(every, draw)  # type: ignore[misc]

    return cases


def kills(every: Studies, draw: random.Random) -> Result:
    """SIGKILL of the study's process, of any that it started, of the tracking server and of the database."""
    run, killed, of_workers = every.new(every.server.port), 0, 0
    began = time.monotonic()
    run.start()
    while killed < KILLS:
        _wait(every, draw)
        if not run.runs():
            break
        victims = ["study", "started" if of_workers < KILLS_OF_WORKERS else "study", "server"]
        victim = draw.choice([*victims, *(["database"] if every.database is not None else [])])
        if victim == "study":
            run.kill()
            run.start()
            of_workers = 0
        elif victim == "started":
            started = run.started()
            if not started:
                continue
            _kill(draw.choice(started))
            of_workers += 1
        elif victim == "server":
            every.server.kill()
            _wait(every, draw)
            every.server.launch()
        elif every.database is not None:
            every.database.kill()
            _wait(every, draw)
            every.database.start()
        killed += 1
    return Result(every.wrong_with(run), killed, time.monotonic() - began - every.seconds)


def lost_replies(every: Studies, draw: random.Random) -> Result:
    """A proxy before the tracking server loses requests and replies, cuts, delays and doubles them."""
    with faulty(every.server.port, draw, every=PROXY_EVERY, most=PROXY_FAULTS) as proxy:
        run = every.new(proxy.port, environment={"MLFLOW_HTTP_REQUEST_TIMEOUT": str(TIMEOUT_S)})
        began = time.monotonic()
        wrong = every.wrong_with(run)
        return Result(wrong, proxy.faults, time.monotonic() - began - every.seconds)


def power_cuts(every: Studies, draw: random.Random) -> Result:
    """The disk of a study loses its power, the machine with it; MLflow's and Optuna's are others."""
    place = every.place / "power"
    place.mkdir(exist_ok=True)
    disk = PowerCut(place)
    disk.make("512M")
    try:
        run = every.new(every.server.port, out=disk.folder / "runs")
        began, cuts = time.monotonic(), 0
        run.start()
        for _ in range(2):
            _wait(every, draw)
            if not run.runs():
                break
            disk.cut()
            run.kill_all()
            disk.unmount()
            disk.mount()
            cuts += 1
            run.start()
        return Result(every.wrong_with(run), cuts, time.monotonic() - began - every.seconds)
    finally:
        disk.unmount()
        disk.folder.rmdir()


def _wait(every: Studies, draw: random.Random) -> None:
    """Wait so long that a round's faults spread over a study."""
    time.sleep(draw.uniform(0.0, every.seconds / 5))


def _kill(process: psutil.Process) -> None:
    try:
        os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has ended meanwhile
        return


KINDS: dict[str, tuple[str, Round]] = {
    "study": ("SIGKILL of a study's process, worker, tracking server or database", kills),
    "proxy": ("requests and replies of the tracking server lost, cut, late, doubled", lost_replies),
    "study-power": ("a power cut under a study", power_cuts),
}
