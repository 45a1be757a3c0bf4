"""Which accelerators a worker gets, and which of several processes speaks."""

import pytest

from vcppo.pool import _environment
from vcppo.process import PROCESSES, gpus_of_worker, is_main


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
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpus_of_worker(index, each) for index in range(5)] == wanted


def test_a_worker_finds_its_gpus_and_the_number_of_processes_in_its_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    own = _environment(1, 2)
    assert (own["CUDA_VISIBLE_DEVICES"], own[PROCESSES]) == ("2,3", "2")
    assert own["OMP_WAIT_POLICY"] == "passive"


def test_the_first_of_several_processes_speaks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RANK", raising=False)
    assert is_main()
    for rank, speaks in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert is_main() is speaks
