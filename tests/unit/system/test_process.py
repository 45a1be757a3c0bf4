"""A worker's accelerators, the one of several processes that speaks, and what Ctrl-C does to those it started."""

import signal
import subprocess
import sys

import pytest

from vcppo.studies.local_pool import _environment
from vcppo.system.processes import PROCESSES, STOPPED, call, gpus_of_worker, interrupts, is_main, shielded, terminable


@pytest.mark.parametrize(
    ("visible", "each", "wanted"),
    [
        ("0,1,2,3", 1, [["0"], ["1"], ["2"], ["3"], ["0"]]),
        ("4,5,6,7", 2, [["4", "5"], ["6", "7"], ["4", "5"], ["6", "7"], ["4", "5"]]),
        ("0,1,2", 2, [["0", "1"]] * 5),  # the third would be half a group
        ("0", 2, [[]] * 5),  # too few: whoever runs the cell says so
        ("", 1, [[]] * 5),
    ],
)
def test_workers_take_turns_with_groups_of_gpus(
    visible: str, each: int, wanted: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpus_of_worker(index, each) for index in range(5)] == wanted


def test_a_worker_finds_its_gpus_and_the_number_of_processes_in_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    own = _environment(1, 2)
    assert (own["CUDA_VISIBLE_DEVICES"], own[PROCESSES]) == ("2,3", "2")
    assert own["OMP_WAIT_POLICY"] == "passive"


def test_the_first_of_several_processes_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert is_main()
    for rank, speaks in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert is_main() is speaks


def test_a_process_started_while_shielded_is_born_deaf_to_ctrl_c() -> None:
    code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    said = []
    with shielded():
        said.append(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip())
    said.append(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip())
    assert said == ["True", "False"]


def test_a_program_that_was_called_ends_with_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = subprocess.Popen.wait
    started: list[subprocess.Popen[bytes]] = []

    def stopped(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        if not started:
            started.append(process)
            raise KeyboardInterrupt
        return wait(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", stopped)
    with pytest.raises(KeyboardInterrupt):
        call([sys.executable, "-c", "import time; time.sleep(60)"])
    assert started[0].returncode == -signal.SIGKILL
    assert call([sys.executable, "-c", "raise SystemExit(7)"]) == 7


def test_a_second_ctrl_c_ends_at_once_what_the_first_one_asked_to_end() -> None:
    code = "import time; from vcppo.system.processes import interrupts\n"
    code += "with interrupts() as interrupted:\n    print('ready', flush=True)\n    interrupted.wait()\n"
    code += "    print('ending', flush=True)\n    time.sleep(600)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for wanted in ("ready\n", "ending\n"):
            assert process.stdout.readline() == wanted
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == f"{STOPPED}\n"


def test_sigterm_after_ctrl_c_waits_for_the_end_in_order() -> None:
    with terminable(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    with interrupts() as interrupted:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert interrupted.is_set()
