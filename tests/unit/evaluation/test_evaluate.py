"""`vcppo evaluate`: whole on disk, goes on after an interruption, repeatable from its report, one line if wrong."""

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import arithmetic
import pytest
from click.testing import CliRunner, Result
from fake_responses import sampled
from rich.console import Console
from safetensors.torch import load_file, save_file
from tiny import ASSIGNMENTS, new_policy, tiny
from transformers import GPT2Config, GPT2LMHeadModel

from vcppo.cli.main import main
from vcppo.errors import CheckpointError
from vcppo.evaluation.progress import EvaluationView
from vcppo.models.checkpoints import save_model
from vcppo.rl.sampler import Sampler
from vcppo.store.samples import SampledProblem, SampleFolder
from vcppo.system.fingerprints import find_checkpoint, fingerprint_of_checkpoint
from vcppo.system.processes import locked
from vcppo.tasks import make_task
from vcppo.types import Prompt, Rollout

TINY = [part for text in ASSIGNMENTS for part in ("--set", text)]
GREEDY = [
    *(part for text in ASSIGNMENTS if text != "evaluation.samples=2" for part in ("--set", text)),
    *("--set", "evaluation.temperature=0"),
]
NAMES = ("somebody/tiny", "somebody/else")
BOTH = """
import json, sys
from vcppo.cli.main import main

codes = []
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as exit:
        codes.append(exit.code)
print(codes)
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)], catch_exceptions=False)


def a_policy(path: Path, seed: int = 0) -> Path:
    save_model(new_policy(seed=seed), make_task(tiny().task).tokenizer(), path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_policy(tmp_path_factory.mktemp("policy") / "policy")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_policy(tmp_path_factory.mktemp("other") / "policy", seed=1)


@pytest.fixture(scope="module")
def out(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The --out of an evaluation with 3 responses a problem."""
    out = tmp_path_factory.mktemp("out")
    assert invoke(checkpoint, "--samples", "3", "--out", out, *TINY).exit_code == 0
    return out


def folder(out: Path) -> Path:
    (found,) = [path for path in (out / "evaluations").iterdir() if path.is_dir()]
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
    assert done.stderr.startswith(f"{spoilt}: not the answers to a problem")
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


# ---- what is wrong is one line ----


def refused(*arguments: object) -> str:
    done = invoke(*arguments)
    assert done.exit_code == 2, done.output
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.output
    return done.stderr


def test_a_broken_policy(checkpoint: Path, tmp_path: Path) -> None:
    broken = a_policy(tmp_path / "policy")
    (broken / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes()[:100])
    said = refused(broken, "--out", tmp_path / "out", *TINY)
    assert said.startswith(f"CheckpointError: {broken}: expected a causal language model")


def test_no_such_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("nowhere", "./no/where", "runs/cache/nowhere", str(tmp_path)):
        assert refused(checkpoint, name, *TINY) == (
            f"CheckpointError: {name}: no config.json there, expected a folder in transformers format\n"
        )


def test_no_tokenizer_is_told_before_the_first_checkpoint_is_asked(checkpoint: Path, tmp_path: Path) -> None:
    bare = a_policy(tmp_path / "policy")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    said = refused(checkpoint, bare, "--out", tmp_path / "out", *TINY)
    assert said.startswith(f"CheckpointError: {bare}: no tokenizer there")
    assert not (tmp_path / "out").exists()


def test_a_family_without_a_decoder_of_its_own_is_asked_all_the_same_and_noted(tmp_path: Path) -> None:
    tokenizer = make_task(tiny().task).tokenizer()
    ends = {"bos_token_id": 1, "eos_token_id": 1}
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=2, **ends))
    save_model(gpt2, tokenizer, tmp_path / "policy")
    done = invoke(tmp_path / "policy", "--out", tmp_path / "out", *TINY)
    assert done.exit_code == 0
    assert done.output.count("note: gpt2: its responses are written by transformers' forward passes") == 1
    assert len(list((tmp_path / "out").rglob("report.json"))) == 1


def test_a_tokenizer_of_another_policy(checkpoint: Path, tmp_path: Path) -> None:
    small = a_policy(tmp_path / "policy")
    make_task(tiny("task.chain_length=30").task).tokenizer().save_pretrained(small)
    said = refused(small, "--out", tmp_path / "out", *TINY, "--set", "task.chain_length=30")
    assert "its tokenizer writes token 43, its policy knows 21 tokens" in said


def test_a_report_that_cannot_be_written_is_told_before_anything_is_asked(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    report = tmp_path / "file" / "report.json"
    said = refused(checkpoint, "--out", tmp_path / "out", "--json", report, *TINY)
    assert said == f"ConfigError: --json {report}: cannot be written (File exists)\n"
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "evaluations").write_text("a file where the folder should be")
    said = refused(checkpoint, "--out", tmp_path, *TINY)
    assert said.startswith(f"CheckpointError: {tmp_path / 'evaluations'}")
    assert "cannot be written" in said


@pytest.mark.parametrize("name", ["provenance.json", "00002.json", "report.json"])
def test_a_disk_that_fills_up_is_told_and_gone_on_from(
    checkpoint: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == name:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("os.replace", full)
    said = refused(checkpoint, "--samples", "3", "--out", tmp_path, *TINY)
    assert said.startswith("DiskError: ")
    assert f"{name}: cannot be written (No space left on device; " in said
    monkeypatch.undo()
    assert invoke(checkpoint, "--samples", "3", "--out", tmp_path, *TINY).exit_code == 0
    found = {place: content for place, content in contents(folder(tmp_path)).items() if "/." not in f"/{place}"}
    assert found == contents(folder(out))


def test_no_responses(checkpoint: Path, tmp_path: Path) -> None:
    assert invoke(checkpoint, "--samples", "0", "--out", tmp_path, *TINY).exit_code == 2
    assert "evaluation.samples = 0 (from --set)" in refused(checkpoint, "--set", "evaluation.samples=0")


def test_somebody_else_at_it(checkpoint: Path, out: Path) -> None:
    with locked(folder(out), "this evaluation"):
        said = refused(checkpoint, "--samples", "3", "--out", out, *TINY)
    assert f"process {os.getpid()} is running this evaluation; wait for it, or stop it" in said


# ---- which checkpoint it is ----


def test_a_copy_is_the_same_policy(checkpoint: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    (copy / "README.md").write_text("a copy")
    os.utime(copy / "config.json", (0, 0))
    assert fingerprint_of_checkpoint(copy) == fingerprint_of_checkpoint(checkpoint)


def test_any_change_of_a_tensor_a_setting_or_the_tokenizer_is_another_policy(checkpoint: Path, tmp_path: Path) -> None:
    seen = {fingerprint_of_checkpoint(checkpoint)}
    weights = (checkpoint / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(weights[:8], "little")
    tensors = json.loads(weights[8:header])
    tensors.pop("__metadata__", None)
    assert len(tensors) > 5
    for start, _ in (entry["data_offsets"] for entry in tensors.values()):
        copy = shutil.copytree(checkpoint, tmp_path / f"at{start}")
        at = header + start
        (copy / "model.safetensors").write_bytes(weights[:at] + bytes([weights[at] ^ 1]) + weights[at + 1 :])
        seen.add(fingerprint_of_checkpoint(copy))
    for name in ("config.json", "tokenizer.json"):
        copy = shutil.copytree(checkpoint, tmp_path / name)
        (copy / name).write_bytes((copy / name).read_bytes() + b" ")
        seen.add(fingerprint_of_checkpoint(copy))
    for change in (lambda b: b[:-1], lambda b: b[:20], lambda b: b"", lambda b: b"\x02" + bytes(7) + b"[]"):
        copy = shutil.copytree(checkpoint, tmp_path / f"cut{len(seen)}")
        (copy / "model.safetensors").write_bytes(change(weights))
        seen.add(fingerprint_of_checkpoint(copy))
    assert len(seen) == 1 + len(tensors) + 2 + 4


def test_a_name_on_the_hub_is_the_commit_that_it_stands_for(checkpoint: Path, tmp_path: Path) -> None:
    """From the hub's cache, laid out as its client lays it out, in a process that may not ask the hub."""
    repository = tmp_path / "hub" / "models--somebody--tiny"
    shutil.copytree(checkpoint, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}

    arguments = json.dumps([["evaluate", name, "--out", str(tmp_path / "out"), *TINY] for name in NAMES])
    command = [sys.executable, "-c", BOTH, arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[0, 2]", done.stderr
    told = json.loads((folder(tmp_path / "out") / "report.json").read_text())
    assert told["checkpoint"] == {"name": NAMES[0], "fingerprint": COMMIT}
    assert done.stderr.startswith(f"CheckpointError: {NAMES[1]}: no such folder, and nothing of this name from the hub")
    assert done.stderr.count("\n") == 1


def test_a_name_that_no_hub_could_have(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="some body/tiny: no such folder, and nothing of this name from the hub"):
        find_checkpoint("some body/tiny")


# ---- getting on ----


def test_progress_is_told_now_and_then_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with EvaluationView("a policy", 5, clock=lambda: now[0]) as view:
        first, second, third, fourth, fifth = sampled("rr", "ww", "rw", "wu", "rr")
        view(first, False)
        for seconds, problem in [(10.0, second), (31.0, third), (40.0, fourth), (62.0, fifth)]:
            now[0] = seconds
            view(problem, True)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "a policy: 3 of 5 problems, accuracy 0.500, 2 tokens/s",  # 40 + 30 of them in 31 s
        "a policy: 5 of 5 problems, accuracy 0.500, 2 tokens/s",
    ]
    assert (view.done, view.before) == (5, 1)


def test_a_terminal_has_a_bar_with_problems_accuracy_and_speed() -> None:
    now, screen = [0.0], io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with EvaluationView("a [policy]", 2, console, clock=lambda: now[0]) as view:
        now[0] = 2.0
        view(sampled("rw")[0], True)
        view.notify("a line")
    told = screen.getvalue()
    assert "a line\n" in told
    assert "a [policy]" in told
    assert "1/2" in told
    assert "accuracy 0.500, 15 tokens/s" in told


def test_the_groups_of_a_command_are_those_of_its_setting(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, roll_out = [], Sampler.roll_out

    def counted(sampler: Sampler, prompts: Sequence[Prompt], **rest: int) -> list[Rollout]:
        asked.append(len(prompts))
        return roll_out(sampler, prompts, **rest)

    monkeypatch.setattr(Sampler, "roll_out", counted)
    flags = ["--samples", "4", "--out", tmp_path, *TINY, "--set", "evaluation.responses_at_once=13"]
    assert invoke(checkpoint, *flags).exit_code == 0
    assert asked == [12, 12, 12, 4]


def test_a_maths_task_needs_no_model_but_the_checkpoint(tmp_path: Path) -> None:
    """AIME asked of a folder: nothing else to be said than the task."""
    model = arithmetic.make_model_folder(tmp_path / "model")
    held_out = arithmetic.make_problems(tmp_path / "sums.jsonl", 3, terms=2)
    training = arithmetic.make_problems(tmp_path / "train.jsonl", 9, seed=1, terms=2)
    maths = (
        "task.name=maths",
        "task.maths.max_tokens=6",
        f"task.maths.evaluate={held_out}",
        f"task.maths.train={training}",
    )
    command = ["evaluate", str(model), "--samples", "2", "--out", str(tmp_path)]
    done = CliRunner().invoke(main, [*command, *(word for text in maths for word in ("--set", text))])
    assert done.exit_code == 0, done.output
    assert "3 problems, 2 responses each, temperature 1, top-p 0.7" in done.output


# ---- a policy that cannot be asked this ----


def test_a_model_that_reads_text_is_not_asked_the_digits_task(tmp_path: Path) -> None:
    """It would get 0.000, and nobody a hint."""
    model = arithmetic.make_model_folder(tmp_path / "model")
    for more in ((), ("--dry-run",)):
        done = invoke(model, "--out", tmp_path / "out", *more)
        assert done.exit_code == 2
        assert done.output == (
            f"ConfigError: task.name = digits: the tokenizer of {model} has no <eos>, so it is no policy of this task "
            "and would get every answer wrong; a model that reads text is asked mathematics, expected "
            "task.name = maths (docs/maths.md)\n"
        )
    assert not (tmp_path / "out").exists()


def test_a_policy_of_the_digits_task_is_not_asked_mathematics(checkpoint: Path, tmp_path: Path) -> None:
    problems = arithmetic.make_problems(tmp_path / "sums.jsonl", 3, seed=1, terms=2)
    words = ("--set", "task.name=maths", "--set", f"task.maths.evaluate={problems}")
    done = invoke(checkpoint, "--out", tmp_path / "out", *words)
    assert done.exit_code == 2
    assert done.output.startswith(f"ConfigError: task.name = maths: the tokenizer of {checkpoint} makes '<pad>' of ")
    assert "task.name = digits" in done.output


def test_a_policy_made_for_shorter_chains_is_not_asked_for_longer_ones(checkpoint: Path, tmp_path: Path) -> None:
    done = invoke(checkpoint, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert done.output == (
        f"ConfigError: task.chain_length = 30: the tokenizer of {checkpoint} has words for 7 lines, its policy was "
        "made for 3; expected task.chain_length = 3\n"
    )


def test_one_of_several_that_cannot_be_asked_is_told_before_the_first_is(checkpoint: Path, tmp_path: Path) -> None:
    model = arithmetic.make_model_folder(tmp_path / "model")
    done = invoke(checkpoint, model, "--out", tmp_path / "out", *TINY)
    assert (done.exit_code, "task.name = digits" in done.output) == (2, True)
    assert not (tmp_path / "out").exists()
