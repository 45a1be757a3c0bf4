"""Mean credit stands beside accuracy in reports and metrics, where the task gives partial credit; nowhere else."""

import dataclasses
import json
from pathlib import Path

from fake_responses import sampled

from vcppo.evaluation import report
from vcppo.stages.evaluation import ProblemResults
from vcppo.store.samples import SampledProblem, SampleFolder
from vcppo.types import Prompt


def with_credit(problems: list[SampledProblem], *rows: tuple[float | None, ...]) -> list[SampledProblem]:
    return [
        dataclasses.replace(
            problem,
            samples=tuple(dataclasses.replace(s, credit=c) for s, c in zip(problem.samples, row, strict=True)),
        )
        for problem, row in zip(problems, rows, strict=True)
    ]


PLAIN = sampled("rw", "ww")
SOME = with_credit(PLAIN, (None, 0.5), (0.25, 0.0))  # 1 + 0.5 + 0.25 + 0 of 4


def test_the_report_has_mean_credit_with_intervals() -> None:
    (credit,) = [measure for measure in report.measures(SOME) if measure.name == "credit"]
    assert credit.value == 0.4375
    assert credit.over_problems.low <= credit.value <= credit.over_problems.high
    assert credit.line().startswith("mean credit              0.438")
    assert [one["credit"] for one in report.results(SOME, [credit])["problems"]] == [0.75, 0.125]
    assert [measure.name for measure in report.measures(SOME) if measure.name != "credit"] == [
        measure.name for measure in report.measures(PLAIN)
    ]
    assert "credit" not in report.results(PLAIN, [])["problems"][0]


def test_a_comparison_has_the_difference() -> None:
    (credit,) = [measure for measure in report.differences(SOME, PLAIN) if measure.name == "credit"]
    assert credit.value == 0.4375 - 0.25  # without credit of the task, one of four is right
    assert "credit" not in [measure.name for measure in report.differences(PLAIN, PLAIN)]


def test_metrics_and_table_of_a_run_have_it() -> None:
    with_it, without = ProblemResults.of(SOME), ProblemResults.of(PLAIN)
    assert with_it.metrics("t")["eval/t/credit"] == 0.4375
    assert with_it.metrics("t").keys() - without.metrics("t").keys() == {"eval/t/credit"}
    assert with_it.table()["credit"] == [0.75, 0.125]
    assert with_it.table().keys() - without.table().keys() == {"credit"}


def test_stored_responses_name_it_where_there_is_some(tmp_path: Path) -> None:
    folder = SampleFolder(tmp_path, notice=lambda line: None)
    for problem in (SOME[0], PLAIN[1]):
        folder.write(problem)
        prompt = Prompt(problem.problem, problem.prompt, problem.answer)
        assert folder.read(problem.number, prompt, len(problem.samples)) == problem
    some, plain = (json.loads(folder.file(number).read_text())["samples"] for number in (0, 1))
    assert [sample.get("credit") for sample in some] == [None, 0.5]
    assert not any("credit" in sample for sample in (some[0], *plain))
