"""`vcppo evaluate`: whole on disk, goes on after an interruption, repeatable from its report."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from evaluations import TINY, a_policy, contents, folder, invoke
from safetensors.torch import load_file, save_file
from tiny import ASSIGNMENTS, tiny

from vcppo.cli.main import main
from vcppo.store.samples import SampledProblem, SampleFolder
from vcppo.system.fingerprints import fingerprint_of_checkpoint
from vcppo.tasks import make_task

GREEDY = [
    *(part for text in ASSIGNMENTS if text != "evaluation.samples=2" for part in ("--set", text)),
    *("--set", "evaluation.temperature=0"),
]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_policy(tmp_path_factory.mktemp("other") / "policy", seed=1)


def test_a_table_with_both_intervals_and_where_the_report_is(checkpoint: Path, out: Path) -> None:
    done = invoke(checkpoint, "--samples", "3", "--out", out, *TINY)
    first, header, *rows, last = done.stdout.splitlines()
    limit = make_task(tiny().task).max_tokens
    asked = f"10 problems, 3 responses each, temperature 1, top-p 1, at most {limit} tokens"
    assert first == f"{checkpoint} on digits: {asked}"
    assert header.split() == ["value", "problems", "and", "samples", "these", "problems"]
    names = [row[:20].strip() for row in rows]
    assert names[:4] == ["avg@3", "pass@2", "pass@3", "length (tokens)"]
    assert {"median", "90th percentile", "cut at the limit", "unreadable"} <= set(names)
    assert last == f"report: {folder(out) / 'report.json'}"
    assert done.stderr == ""


def test_a_report_says_all_that_repeats_it(checkpoint: Path, out: Path, tmp_path: Path) -> None:
    told = json.loads((folder(out) / "report.json").read_text())
    assert told["schema"] == "vcppo-evaluation/1"
    assert told["checkpoint"] == {"name": str(checkpoint), "fingerprint": fingerprint_of_checkpoint(checkpoint)}
    assert told["address"] == folder(out).name
    assert (told["task"], told["samples"], told["seed"]) == ("digits", 3, 0)
    assert told["sampling"] == {"temperature": 1.0, "top_p": 1.0, "max_tokens": make_task(tiny().task).max_tokens}
    assert told["settings"]["task"] == tiny().model_dump(mode="json")["task"]
    assert told["verifier"]["vcppo"]
    assert len(told["provenance"]) == 1
    assert told["provenance"][0]["versions"]["torch"]
    assert len(told["problems"]) == 10
    assert told["metrics"].keys() >= {"avg_at_3", "pass_at_1", "pass_at_2", "pass_at_3", "length_tokens"}

    vcppo, evaluate, *arguments = shlex.split(told["command"])
    assert (vcppo, evaluate) == ("vcppo", "evaluate")
    assert not any("steps" in argument for argument in arguments), "what an evaluation does not use"
    assert invoke(*arguments, "--out", tmp_path).exit_code == 0
    assert contents(folder(tmp_path)) == contents(folder(out))


def test_asked_again_it_reads_and_loads_no_policy(
    checkpoint: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(folder(out))
    monkeypatch.setattr("vcppo.models.loading.load_policy", None)
    report = tmp_path / "deep" / "report.json"
    done = invoke(checkpoint, "--samples", "3", "--out", out, "--json", report, *TINY)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == f"written to {report}"
    assert contents(folder(out)) == before
    assert report.read_bytes() == before["report.json"]
    assert [file.name for file in report.parent.iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("change", "is_new"),
    [
        (("evaluation.seed=1",), True),
        (("evaluation.temperature=0.9",), True),
        (("task.held_out=9",), True),
        (("rollout.max_tokens=5",), True),
        (("evaluation.responses_at_once=1",), False),
        (("evaluation.samples_during=3", "steps=9", "policy.learning_rate=0.1"), False),
    ],
)
def test_another_evaluation_has_another_folder(
    checkpoint: Path, out: Path, change: tuple[str, ...], is_new: bool
) -> None:
    flags = [part for text in change for part in ("--set", text)]
    done = invoke(checkpoint, "--samples", "3", "--out", out, "--dry-run", *TINY, *flags)
    done_before = int(done.stdout.splitlines()[1].split()[0])
    assert done_before == (0 if is_new else 10)


def test_greedy_decoding_writes_one_response_a_problem_and_repeats_from_its_command(
    checkpoint: Path, tmp_path: Path
) -> None:
    done = invoke(checkpoint, "--out", tmp_path, *GREEDY)
    assert done.exit_code == 0
    told = json.loads((folder(tmp_path) / "report.json").read_text())
    assert (told["samples"], told["sampling"]["temperature"]) == (1, 0.0)
    greedy = [json.loads(path.read_text()) for path in sorted((folder(tmp_path) / "samples").iterdir())]
    _, _, *arguments = shlex.split(told["command"])
    assert "evaluation.temperature=0.0" in arguments
    assert invoke(*arguments, "--out", tmp_path / "again").exit_code == 0
    assert contents(folder(tmp_path / "again")) == contents(folder(tmp_path))
    assert len(greedy) == 10
    refused = CliRunner().invoke(main, ["evaluate", str(checkpoint), "--samples", "2", "--out", str(tmp_path), *GREEDY])
    assert refused.exit_code == 2
    assert "evaluation.samples = 2 with evaluation.temperature = 0" in refused.stderr


def test_a_report_of_a_model_with_code_of_its_own_says_so_in_its_command(checkpoint: Path, tmp_path: Path) -> None:
    done = invoke(checkpoint, "--out", tmp_path, "--set", "model.trust_remote_code=true", *GREEDY)
    assert done.exit_code == 0
    told = json.loads((folder(tmp_path) / "report.json").read_text())
    assert "model.trust_remote_code=true" in shlex.split(told["command"])


def test_a_policy_that_says_no_numbers_is_one_line(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "policy")
    weights = load_file(tmp_path / "policy" / "model.safetensors")
    weights["lm_head.weight"].fill_(3e38)
    save_file(weights, tmp_path / "policy" / "model.safetensors", metadata={"format": "pt"})
    failed = CliRunner().invoke(main, ["evaluate", str(tmp_path / "policy"), "--out", str(tmp_path), *TINY])
    assert failed.exit_code == 2
    assert failed.stderr.count("\n") == 1
    assert f"{tmp_path / 'policy'}: LlamaForCausalLM from" in failed.stderr
    assert "its logits for token 0 of response 0 are not finite" in failed.stderr


def test_a_dry_run_says_what_there_is_to_do_and_writes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    done = invoke(checkpoint, "--dry-run", "--out", tmp_path / "runs", "--json", tmp_path / "a" / "b.json", *TINY)
    assert done.exit_code == 0
    tokens = 20 * make_task(tiny().task).max_tokens / 1e6
    assert f"0 problems done already, 20 responses to write, at most {tokens:.3g} M tokens" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Ctrl-C as the fifth problem is about to be written."""
    write = SampleFolder.write

    def stopped(self: SampleFolder, problem: SampledProblem) -> None:
        if problem.number == 4:
            raise KeyboardInterrupt
        write(self, problem)

    monkeypatch.setattr(SampleFolder, "write", stopped)
    return monkeypatch


def test_ctrl_c_says_how_to_go_on_and_going_on_is_straight_through(
    checkpoint: Path, out: Path, tmp_path: Path, interrupted: pytest.MonkeyPatch
) -> None:
    arguments = [checkpoint, "--samples", "3", "--out", tmp_path, *TINY]
    done = invoke(*arguments)
    assert done.exit_code == 130
    assert done.stdout == "stopped, 4 of 10 problems are done; the same command goes on from there\n"
    assert not (folder(tmp_path) / "report.json").exists()
    dry = invoke(*arguments, "--dry-run")
    assert "4 problems done already, 18 responses to write" in dry.stdout
    interrupted.undo()
    assert invoke(*arguments).exit_code == 0
    assert contents(folder(tmp_path)) == contents(folder(out))


def test_a_report_names_every_machine_that_responded(
    checkpoint: Path, tmp_path: Path, interrupted: pytest.MonkeyPatch
) -> None:
    arguments = [checkpoint, "--samples", "3", "--out", tmp_path, *TINY]
    invoke(*arguments)
    interrupted.undo()
    interrupted.setattr("vcppo.evaluation.evaluate.provenance", lambda: {"commit": "another"})
    assert invoke(*arguments).exit_code == 0
    made_by = json.loads((folder(tmp_path) / "report.json").read_text())["provenance"]
    assert [found["commit"] for found in made_by][1:] == ["another"]
    assert len(made_by) == 2


def test_a_spoilt_file_is_told_on_stderr_and_mended(checkpoint: Path, out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "out")
    spoilt = folder(tmp_path / "out") / "samples" / "00003.json"
    spoilt.write_bytes(spoilt.read_bytes()[:100])
    done = invoke(checkpoint, "--samples", "3", "--out", tmp_path / "out", *TINY)
    assert done.exit_code == 0
    assert done.stderr.startswith(f"{spoilt}: not the responses to a problem")
    assert done.stderr.count("\n") == 1
    assert contents(folder(tmp_path / "out")) == contents(folder(out))


def test_two_checkpoints_are_compared_problem_by_problem(
    checkpoint: Path, other: Path, out: Path, tmp_path: Path
) -> None:
    report = tmp_path / "comparison.json"
    done = invoke(checkpoint, other, "--samples", "3", "--out", out, "--json", report, *TINY)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if " on digits: " in line] == [str(checkpoint), str(other)]
    start = lines.index(f"{other} less {checkpoint}, problem by problem")
    assert [line.split()[0] for line in lines[start + 2 : start + 5]] == ["avg@3", "pass@2", "pass@3"]
    told = json.loads(report.read_text())
    assert told["schema"] == "vcppo-comparison/1"
    assert [one["checkpoint"]["name"] for one in told["reports"]] == [str(checkpoint), str(other)]
    for one in told["reports"]:
        assert one == json.loads((out / "evaluations" / one["address"] / "report.json").read_text())
    lengths = [one["metrics"]["length_tokens"]["value"] for one in told["reports"]]
    (difference,) = told["differences"]
    assert difference["length_tokens"]["value"] == pytest.approx(lengths[1] - lengths[0])
    low, high = difference["length_tokens"]["problems_and_samples"]
    assert low < difference["length_tokens"]["value"] < high
    shutil.rmtree(out / "evaluations" / told["reports"][1]["address"])
