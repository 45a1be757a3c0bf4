"""Outcomes in their file, and the table of them."""

from pathlib import Path

from torture.tally import Outcome, Outcomes, counts, table


def test_of_a_case_that_ended_wrongly_no_fault_counts_as_survived(tmp_path: Path) -> None:
    outcomes = Outcomes(tmp_path / "outcomes.jsonl")
    outcomes.add(Outcome("kill", "write 1", 1, None, 0.5))
    outcomes.add(Outcome("kill", "write 2", 1, "journal differs", 1.5))
    outcomes.add(Outcome("study", "round 0 of seed 0", 6, None, 30.0))
    assert counts(outcomes.all) == (8, 7)
    assert table({"kill": "SIGKILL", "study": "kills", "proxy": "requests"}, outcomes).splitlines() == [
        "| fault | tried | survived | seconds lost, each |",
        "|---|---|---|---|",
        "| `kill`: SIGKILL | 2 | 1 | 1.0 |",
        "| `study`: kills | 6 | 6 | 5.0 |",
        "| all | 8 | 7 | |",
    ]


def test_a_second_call_knows_what_the_first_has_tried(tmp_path: Path) -> None:
    file = tmp_path / "outcomes.jsonl"
    Outcomes(file).add(Outcome("kill", "write 1", 1, None, 0.5))
    again = Outcomes(file)
    assert again.known() == {("kill", "write 1")}
    again.add(Outcome("kill", "write 2", 1, None, 0.5))
    assert len(Outcomes(file).all) == 2
