"""`vcppo diagnose` as its user runs it: a policy and critics, or a dump alone, to a page and its numbers."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tiny
from click.testing import CliRunner, Result

from vcppo.cli.main import main
from vcppo.diagnosis.schema import Report
from vcppo.models import loading
from vcppo.models.checkpoints import save_model
from vcppo.tasks import make_task

SETTINGS = [part for text in tiny.ASSIGNMENTS if text.startswith("task.") for part in ("--set", text)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random policy of the tiny task, and two critics of random weights."""
    folder, tokenizer = tmp_path_factory.mktemp("models"), make_task(tiny.tiny().task).tokenizer()
    save_model(tiny.new_policy(), tokenizer, folder / "policy")
    for seed in (1, 2):
        save_model(
            tiny.plainly(loading.load_critic(folder / "policy", head_seed=seed)), tokenizer, folder / f"critic-{seed}"
        )
    return folder


def diagnosed(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["diagnose", *map(str, arguments)])


def report_in(folder: Path) -> Report:
    return Report.model_validate_json((folder / "report.json").read_text(encoding="utf-8"))


def critics_of(models: Path) -> list[str]:
    return ["--critic", f"one={models / 'critic-1'}", "--critic", f"two={models / 'critic-2'}"]


def with_ids(folder: Path) -> Path:
    """Responses of token ids, 20 prompts with four each, right where a token of theirs is."""
    draw = random.Random(0)
    dump = folder / "ids.jsonl"
    made = []
    for number in range(80):
        tokens = [draw.randrange(2, 14) for _ in range(draw.randrange(4, 12))]
        prompt = [4 + number // 4 % 10, 5 + number // 40]
        made.append({"prompt_tokens": prompt, "tokens": tokens, "score": 1.0 if tokens[1] < 8 else -1.0})
    dump.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return dump


def test_policy_and_critics_become_a_page_with_gradients(models: Path, tmp_path: Path) -> None:
    few = ["--batch", "16", "--shown", "5", "--lambdas", "0.95,1"]
    dump, out = with_ids(tmp_path), tmp_path / "out"
    result = diagnosed("--answers", dump, "--policy", models / "policy", *critics_of(models), *few, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"written to {out / 'index.html'}" in result.output
    tokens = sum(len(row["prompt_tokens"] + row["tokens"]) for row in map(json.loads, dump.read_text().splitlines()))
    assert f"80 responses, {tokens} tokens with their prompts; 2 critics read them; gradients of 6 kinds of advan" in (
        result.output
    )
    report = report_in(out)
    assert (report.data.responses, report.data.problems) == (80, 20)
    assert [(critic.name, critic.layout) for critic in report.critics] == [
        ("one", "token classifier"),
        ("two", "token classifier"),
    ]
    for critic in report.critics:
        assert {one.method for one in critic.alignment} == {"gradient", "preconditioned"}
        assert {one.gae_lambda for one in critic.alignment} == {0.95, 1.0}
    assert {verdict.critic for verdict in report.verdicts} == {"one", "two"}
    assert "5 of 80 responses" in " ".join((out / "index.html").read_text(encoding="utf-8").split())


def test_responses_that_the_policy_cannot_read_have_no_part_in_gradients(models: Path, tmp_path: Path) -> None:
    settings, tokenizer = tiny.tiny(), make_task(tiny.tiny().task).tokenizer()
    for name, length in (("short", 11), ("none", 5)):
        policy = tiny.plainly(loading.new_policy(settings.model, tokenizer, max_length=length, seed=0))
        save_model(policy, tokenizer, tmp_path / name)
    dump = with_ids(tmp_path)
    fitting = sum(len(json.loads(line)["tokens"]) <= 9 for line in dump.read_text().splitlines())
    common = ["--answers", str(dump), "--critic", f"one={models / 'critic-1'}", "--lambdas", "1", "--shown", "5"]
    result = diagnosed(*common, "--policy", tmp_path / "short", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    (critic,) = report_in(tmp_path / "out").critics
    (note,) = [note for note in critic.notes if note.startswith("gradients:")]
    assert f"{80 - fitting} of 80 responses do not fit the 11 tokens that the policy" in note
    assert critic.alignment
    assert report_in(tmp_path / "out").data.responses == 80
    result = diagnosed(*common, "--policy", tmp_path / "none", "--out", tmp_path / "other")
    assert result.exit_code == 0, result.output
    (critic,) = report_in(tmp_path / "other").critics
    assert not critic.alignment
    assert any(note.startswith("no gradients: 80 of 80 responses do not fit the 5 tokens") for note in critic.notes)


def test_a_policy_writes_the_responses_and_a_second_call_goes_on_with_them(models: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = [
        "--policy",
        models / "policy",
        *critics_of(models),
        "--prompts",
        "20",
        "--samples",
        "4",
        *SETTINGS,
    ]
    first = diagnosed(*arguments, "--out", tmp_path)
    assert first.exit_code == 0, first.output
    report = report_in(tmp_path)
    assert report.data.responses == 80
    assert "all-wrong" in {verdict.code for verdict in report.verdicts}  # the policy's weights are random
    selected = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*")) if path.parent != tmp_path}
    assert sum(path.suffix == ".jsonl" for path in selected) == 2
    assert diagnosed(*arguments, "--out", tmp_path).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in selected} == selected
    again = report_in(tmp_path)
    assert (again.critics, again.data, again.verdicts) == (report.critics, report.data, report.verdicts)
    save_model(tiny.new_policy(seed=1), make_task(tiny.tiny().task).tokenizer(), tmp_path / "other")
    for other in (["--set", "seed=1"], ["--samples", "3"], ["--policy", tmp_path / "other"]):
        before = set(tmp_path.rglob("*.jsonl"))
        assert diagnosed(*arguments, *other, "--out", tmp_path).exit_code == 0
        assert len(set(tmp_path.rglob("*.jsonl")) - before) == 2, f"{other}: responses of another run were taken"


def rows(count: int = 64) -> list[dict[str, Any]]:
    """Responses of anybody's trainer with values that are 1 too low everywhere."""
    made = []
    for number in range(count):
        right, length = number % 3 == 0, 4 + number % 5
        made.append(
            {
                "prompt": f"question {number // 4}",
                "response": " ".join(["word"] * length),
                "score": float(right),
                "values": [float(right) * 0.6 + 0.1 - 1.0] * length,
            }
        )
    return made


def test_a_dump_alone_is_judged_by_its_own_values(tmp_path: Path) -> None:
    dump = tmp_path / "log.jsonl"
    dump.write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
    result = diagnosed("--answers", dump, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    report = report_in(tmp_path / "out")
    assert report.critics[0].regressor is not None
    assert report.critics[0].regressor.bias.value == pytest.approx(-1.03, abs=0.05)
    assert "offset" in {verdict.code for verdict in report.verdicts}
    assert {one.method for one in report.critics[0].alignment} <= {"surrogate"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--answers", "HERE/none.jsonl"], "none.jsonl"),
        (["--answers", "HERE/log.jsonl", "--lambdas", "0.9,2"], "--lambdas 0.9,2: expected numbers in [0, 1]"),
        (["--answers", "HERE/log.jsonl", "--column", "scores=x"], "--column scores=x: expected ROLE=NAME"),
        (["--answers", "HERE/log.jsonl", "--critic", "HERE"], "HERE"),
        (["--answers", "HERE/log.jsonl", "--critic", "a=x", "--critic", "a=y"], "two are called alike"),
        (["--answers", "HERE/plain.jsonl"], "no response has values per token"),
        ([], "--answers: expected logged responses, or --policy"),
        (["--policy", "HERE/nobody"], "--critic: expected one, since"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_writes_nothing(arguments: list[str], line: str, tmp_path: Path) -> None:
    for name, values in (("log", True), ("plain", False)):
        lines = (json.dumps({key: x for key, x in row.items() if values or key != "values"}) for row in rows(8))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    here = str(tmp_path)
    result = diagnosed(*(text.replace("HERE", here) for text in arguments), "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert line.replace("HERE", here) in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
