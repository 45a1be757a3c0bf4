"""Every form of dump is read: a small file of each, in its trainer's columns, gives the same responses."""

import contextlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dump_writers import (
    IDS,
    WRITERS,
    generic,
    generic_conversation,
    lighteval,
    lighteval_before,
    nemo_rl,
    nemo_rl_validation,
    openrlhf,
    rollouts,
    slime,
    slime_samples,
    slime_training,
    trl,
    vcppo,
    vcppo_journal,
    verl,
    wandb_table,
    write_lines,
    write_parquet,
)

from vcppo.diagnosis.dumps.files import EXPORT
from vcppo.diagnosis.dumps.form import ROLES
from vcppo.diagnosis.dumps.forms import FORMS
from vcppo.diagnosis.dumps.generic import USUAL
from vcppo.diagnosis.dumps.reading import read_dump
from vcppo.diagnosis.responses import Dump, LoggedResponse
from vcppo.errors import ConfigError, DataError
from vcppo.store.samples import SampledProblem, SampleFolder
from vcppo.types import Rollout


def read(writer: Callable[[Path], Path], folder: Path, **chosen: Any) -> Dump:
    return read_dump([writer(folder)], **chosen)


@pytest.mark.parametrize(("form", "writer"), WRITERS, ids=lambda part: getattr(part, "__name__", part))
def test_a_form_is_recognised_and_gives_scores_texts_and_prompts(
    form: str, writer: Callable[[Path], Path], tmp_path: Path
) -> None:
    dump = read(writer, tmp_path)
    assert dump.form == form
    assert [response.score for response in dump.responses] == [1.0, 0.0, 1.0]
    first, second, third = (response.problem for response in dump.responses)
    assert first == second != third
    if writer is not slime_training:  # which has token ids alone
        assert [response.text for response in dump.responses] == ["2", "3", "4"]
        assert all(response.prompt or response.messages for response in dump.responses)


@pytest.mark.parametrize(("form", "writer"), WRITERS, ids=lambda part: getattr(part, "__name__", part))
def test_a_form_that_is_named_reads_the_same(form: str, writer: Callable[[Path], Path], tmp_path: Path) -> None:
    path = writer(tmp_path)
    assert read_dump([path], form=form) == read_dump([path])


def test_every_form_has_a_file_here_and_one_line_for_help() -> None:
    assert {form for form, _ in WRITERS} == set(FORMS)
    assert all(form.description and "\n" not in form.description for form in FORMS.values())


def test_forms_are_told_without_torch() -> None:
    code = "import sys, vcppo.diagnosis.dumps.forms; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("writer", [nemo_rl, slime, slime_training, lighteval, lighteval_before])
def test_token_ids_are_split_into_prompt_and_response(writer: Callable[[Path], Path], tmp_path: Path) -> None:
    got = [(response.prompt_tokens, response.tokens) for response in read(writer, tmp_path).responses]
    assert got == [(tuple(before), tuple(ids)) for before, ids in IDS]


def test_what_else_a_form_has_is_read(tmp_path: Path) -> None:
    def last(writer: Callable[[Path], Path]) -> LoggedResponse:
        folder = tmp_path / writer.__name__
        folder.mkdir(exist_ok=True)
        return read(writer, folder).responses[-1]

    assert last(verl).step == 1
    assert last(verl).prompt == "user\n2+2=\nassistant\n"
    assert last(trl).step == 5
    assert (last(openrlhf).step, last(openrlhf).prompt) == (7, "user\n2+2=\nassistant\n")
    assert (last(nemo_rl).step, last(nemo_rl).logprobs) == (3, (-0.5, -0.5, -0.5))
    assert last(nemo_rl).prompt == "<user>2+2="
    assert (last(nemo_rl_validation).step, last(nemo_rl_validation).prompt) == (3, "2+2=")
    assert (last(slime).step, last(slime).truncated, last(slime).logprobs) == (12, False, (-0.5, -0.5, -0.5))
    assert last(slime_training).values == (0.25, 0.25, 0.25)
    assert last(vcppo).truncated is False
    assert last(vcppo_journal).step == 10
    assert last(generic).values == (0.5, 0.25)
    assert last(generic_conversation).messages == ({"role": "user", "content": "2+2="},)


def test_a_cut_response_is_told(tmp_path: Path) -> None:
    assert [response.truncated for response in read(slime, tmp_path).responses] == [False, True, False]
    assert [response.truncated for response in read(vcppo, tmp_path).responses] == [False, True, False]


# ---- what is particular to a trainer ----


@pytest.mark.parametrize("nothing", [float("nan"), None])
def test_reward_functions_of_trl_are_summed_or_one_is_named(nothing: float | None, tmp_path: Path) -> None:
    row = {"step": 1, "prompt": "p", "completion": "c", "right": 1.0, "tidy": 0.25, "advantage": 0.0}
    unscored = row | {"right": nothing, "tidy": nothing}
    half = row | {"right": nothing}
    path = write_parquet(tmp_path / "a.parquet", [row, unscored, half])
    dump = read_dump([path])
    assert [response.score for response in dump.responses] == [1.25, 0.25]
    assert any("score = right + tidy" in note for note in dump.notes)
    assert "responses left out, no reward function of TRL scored them: 1" in dump.notes
    named = read_dump([write_parquet(path, [row])], columns={"score": "tidy"})
    assert [response.score for response in named.responses] == [0.25]
    assert not any("right + tidy" in note for note in named.notes)


def test_completions_that_trl_tells_in_two_files_count_once(tmp_path: Path) -> None:
    rows = [{"step": 1, "prompt": "p", "completion": c, "right": 1.0, "advantage": 0.0} for c in "abc"]
    write_parquet(tmp_path / "completions_00001.parquet", rows)
    write_parquet(tmp_path / "completions_00002.parquet", [row | {"step": 2} for row in rows])
    write_parquet(tmp_path / "completions_00003.parquet", [row | {"step": 3, "completion": "d"} for row in rows])
    dump = read_dump([tmp_path])
    assert [(response.text, response.step) for response in dump.responses] == [
        ("a", 1), ("b", 1), ("c", 1), ("d", 3), ("d", 3), ("d", 3)
    ]  # fmt: skip
    assert "responses left out, the file before told the same in the same row: 3" in dump.notes


def test_a_table_of_openrlhf_without_a_mark_of_the_turn_is_refused(tmp_path: Path) -> None:
    path = wandb_table(tmp_path / "t.json", ["global_step", "text", "reward"], [[1, "two and two is four", 1.0]])
    with pytest.raises(DataError, match='row 1 of its table: nothing in "text" tells where the response begins'):
        read_dump([path])


def test_dynamic_sampling_of_nemo_rl_trains_on_filtered_rewards(tmp_path: Path) -> None:
    row = {"content": [["p", "r"]], "rewards": [9.0], "filtered_rewards": [1.0], "idx": 0}
    (response,) = read_dump([write_lines(tmp_path / "train_data_step1.jsonl", [row])]).responses
    assert (response.score, response.prompt, response.text) == (1.0, "p", "r")


def test_nemo_rl_without_token_ids_and_several_messages_is_refused(tmp_path: Path) -> None:
    row = {"content": [["a", "b", "c"]], "rewards": [9.0], "idx": 0}
    with pytest.raises(DataError, match="3 messages and no token_ids"):
        read_dump([write_lines(tmp_path / "train_data_step1.jsonl", [row])])


def test_training_is_read_and_validation_beside_it_is_not(tmp_path: Path) -> None:
    nemo_rl(tmp_path)
    nemo_rl_validation(tmp_path)
    dump = read_dump([tmp_path])
    assert len(dump.responses) == 3
    assert any("files of validation are not" in note for note in dump.notes)


def test_what_trainers_kept_out_of_the_loss_is_left_out(tmp_path: Path) -> None:
    samples = slime_samples()
    samples[0]["remove_sample"] = True
    samples[1]["status"] = "aborted"
    dump = read_dump([write_lines(tmp_path / "a.jsonl", samples)])
    assert [response.text for response in dump.responses] == ["4"]
    assert "responses left out, slime kept them out of the loss (remove_sample): 1" in dump.notes
    assert "responses left out, their generation was aborted or failed: 1" in dump.notes


def test_a_reward_of_several_numbers_is_refused_until_one_is_named(tmp_path: Path) -> None:
    samples = [sample | {"reward": {"acc": 1.0, "tidy": 0.5}} for sample in slime_samples()]
    path = write_lines(tmp_path / "a.jsonl", samples)
    with pytest.raises(DataError, match=r"the numbers acc, tidy; expected one: name it as score=reward\.NAME"):
        read_dump([path])
    assert read_dump([path], columns={"score": "reward.tidy"}).responses[0].score == 0.5


def test_several_samples_of_lighteval_with_one_score_are_refused(tmp_path: Path) -> None:
    row = {"doc": {"query": "p"}, "metric": {"avg@2": 0.5}, "model_response": {"text": ["a", "b"]}}
    with pytest.raises(DataError, match="2 generated texts for a problem; expected one"):
        read_dump([write_parquet(tmp_path / "a.parquet", [row])])


def test_a_metric_of_lighteval_is_the_first_or_named(tmp_path: Path) -> None:
    row = {"doc": {"query": "p"}, "metric": {"b": 0.5, "a": True}, "model_response": {"text": ["a"]}}
    path = write_parquet(tmp_path / "a.parquet", [row])
    dump = read_dump([path])
    assert dump.responses[0].score == 1.0
    assert any("score = metric.a, the first of the metrics a, b" in note for note in dump.notes)
    assert read_dump([path], columns={"score": "metric.b"}).responses[0].score == 0.5


def test_credit_of_a_task_is_the_score(tmp_path: Path) -> None:
    group = [Rollout(**(vars(rollout) | {"credit": 0.5})) for rollout in rollouts()[:1]]
    SampleFolder(tmp_path, notice=lambda line: None).write(SampledProblem.of(0, 0, 0, group))
    assert read_dump([tmp_path]).responses[0].score == 0.5


def test_the_command_that_is_shown_exports_what_slime_saves(tmp_path: Path) -> None:
    ids, values = torch.tensor([1, 2, 3]), torch.tensor([0.5, 0.25])
    training = {"tokens": ids, "response_lengths": 2, "rewards": 1.0, "values": values, "other": ids.dtype}
    for name, samples in (("0.pt", slime_samples()), ("1.pt", [training])):
        torch.save({"rollout_id": 0, "samples": samples}, tmp_path / name)
        python, _, code, _, _ = shlex.split(EXPORT)
        assert python == "python"
        with open(tmp_path / f"{name}.jsonl", "w") as file, contextlib.redirect_stdout(file):
            exec(code.replace("FILE", str(tmp_path / name)), {})
    assert [response.text for response in read_dump([tmp_path / "0.pt.jsonl"]).responses] == ["2", "3", "4"]
    (response,) = read_dump([tmp_path / "1.pt.jsonl"]).responses
    assert (response.prompt_tokens, response.tokens, response.values) == ((1,), (2, 3), (0.5, 0.25))


# ---- names of columns ----


def test_columns_are_named_by_role_and_reach_into_others(tmp_path: Path) -> None:
    rows = [{"q": "p", "a": "r", "extra": {"ok": True}, "id": 3}]
    path = write_lines(tmp_path / "a.jsonl", rows)
    named = {"prompt": "q", "response": "a", "score": "extra.ok", "problem": "id"}
    (response,) = read_dump([path], columns=named).responses
    assert (response.prompt, response.text, response.score) == ("p", "r", 1.0)


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"q": "p", "a": "r"}])
    with pytest.raises(DataError, match=re.escape(f"{path} line 1: no column mark, named as the score; it has q, a")):
        read_dump([path], columns={"score": "mark"})


def test_a_role_or_form_that_is_not_known_is_refused(tmp_path: Path) -> None:
    path = verl(tmp_path)
    with pytest.raises(ConfigError, match="no such role, verdict; expected prompt, "):
        read_dump([path], columns={"verdict": "acc"})
    with pytest.raises(ConfigError, match="form = verrl: expected one of verl, trl"):
        read_dump([path], form="verrl")
    with pytest.raises(ConfigError, match="limit = 0: expected 1 or more"):
        read_dump([path], limit=0)
    with pytest.raises(ConfigError, match="those of the form vcppo cannot be named"):
        read_dump([vcppo(tmp_path / "own")], columns={"score": "credit"})


def test_several_scores_are_told_and_one_can_be_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "p", "response": "r", "reward": 0.5, "acc": 1}])
    dump = read_dump([path])
    assert dump.responses[0].score == 0.5
    assert "score = reward, the first of reward, acc; score=COLUMN takes another" in dump.notes
    assert read_dump([path], columns={"score": "acc"}).responses[0].score == 1.0


def test_an_answer_is_the_response_where_no_other_column_is_and_that_is_told(tmp_path: Path) -> None:
    row = {"prompt": "p", "answer": "17", "score": 1}
    dump = read_dump([write_lines(tmp_path / "a.jsonl", [row])])
    assert dump.responses[0].text == "17"
    told = "response = answer; response=COLUMN takes another, where that is the problem's answer"
    assert told in dump.notes
    turns = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "so 17"}]
    for other in (row | {"text": "so 17"}, {"messages": turns, "answer": "17", "score": 1}):
        dump = read_dump([write_lines(tmp_path / "b.jsonl", [other])])
        assert dump.responses[0].text == "so 17"
        assert told not in dump.notes


def test_another_score_of_verl_can_be_named(tmp_path: Path) -> None:
    assert [r.score for r in read(verl, tmp_path, columns={"score": "acc"}).responses] == [1.0, 0.0, 1.0]


# ---- docs/dumps.md ----


PAGE = (Path(__file__).parents[3] / "docs" / "dumps.md").read_text(encoding="utf-8")
TABLE = dict(re.findall(r"^\| `([\w-]+)` \| (.*?) \|", PAGE, re.MULTILINE))


def test_the_page_tells_of_every_form_and_role_and_of_every_usual_name() -> None:
    assert set(TABLE) == set(FORMS) | set(ROLES)
    for role, usual in USUAL.items():
        assert TABLE[role] == ", ".join(usual)


def test_the_page_shows_the_command_that_is_tested() -> None:
    assert EXPORT in PAGE
