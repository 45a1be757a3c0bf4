"""Value pretraining beside the truth: true values of its held-out responses, computed once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import tiny
from torch import Tensor

from vcppo.errors import CheckpointError, DataError
from vcppo.maths.diagnostics import explained_variance, value_bias
from vcppo.rl.critic_update import read_values
from vcppo.rl.exact_values import Response, exact_values
from vcppo.stages import value_pretraining as stage
from vcppo.stages.context import StageContext
from vcppo.stages.pipeline import run_stages
from vcppo.stages.shared.saved_responses import load_responses, responses_file
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.journal import read_journal

SETTINGS = tiny("critic.init=policy", "cold_start.steps=40", "pretrain.steps=2", "task.chain_length=2")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> StageContext:
    out = tmp_path_factory.mktemp("truth")
    run_stages(SETTINGS, out, until="value-pretraining")
    found = addresses(SETTINGS)
    earlier = {name: StageFolder(out, found[name]) for name in ("cold-start", "answers")}
    return StageContext(SETTINGS, StageFolder(out, found["value-pretraining"]), earlier)


def test_true_values_are_of_the_held_out_responses_to_their_own_prompts(here: StageContext) -> None:
    """Found by the text of the prompts, one response at a time."""
    pretraining = stage.Pretraining(here)
    batch, truth = pretraining.held_out.batch, pretraining.true_values
    assert truth is not None
    assert truth.shape == batch.response_mask.shape
    policy = here.load_first_policy()
    sampler = here.sampler(policy)
    known = {
        tuple(ids): prompt
        for prompt in here.task.training_prompts(5000, torch.Generator().manual_seed(0))
        for ids in here.task.encode([prompt], here.tokenizer)
    }
    for row in (0, 13, 31):
        start, end = int(batch.prompt_lengths[row]), int(batch.total_lengths[row])
        ids = batch.input_ids[row].tolist()
        response = Response(known[tuple(ids[:start])], tuple(ids[:start]), tuple(ids[start:end]))
        alone = exact_values(policy, [response], sampler=sampler, reward=SETTINGS.reward, max_tokens=500).values()
        torch.testing.assert_close(truth[row, : end - start], alone[0])


def test_each_measurement_has_the_error_against_them_and_the_ceiling(here: StageContext) -> None:
    records = [r for r in read_journal(here.folder.path / "journal.jsonl") if "values" in r]
    first = next(r["values"] for r in records if "pretrain/held_out_loss" in r["values"])
    pretraining = stage.Pretraining(here)
    batch, truth = pretraining.held_out.batch, pretraining.true_values
    assert truth is not None
    values = read_values(pretraining.critic, batch, 1000)
    assert first["pretrain/true_bias"] == pytest.approx(value_bias(values, truth, batch.response_mask), abs=1e-5)
    error = (values - truth)[batch.response_mask].square().mean().sqrt()
    assert first["pretrain/true_error"] == pytest.approx(float(error), abs=1e-5)
    ceiling = explained_variance(truth, pretraining.held_out.returns, batch.response_mask)
    logged = first["pretrain/explained_variance_ceiling"]
    assert logged == pytest.approx(ceiling, abs=1e-5) if ceiling == ceiling else logged is None
    assert sum("pretrain/true_error" in r["values"] for r in records) == 2


def with_answers(here: StageContext, path: Path, change: Callable[[str, Tensor], Tensor]) -> StageContext:
    moved = StageFolder(path, here.earlier["answers"].address)
    moved.path.mkdir(parents=True)
    batch = load_responses(here.earlier["answers"].path)
    save_file({name: change(name, x).contiguous() for name, x in vars(batch).items()}, responses_file(moved.path))
    return StageContext(SETTINGS, StageFolder(path, here.folder.address), {**here.earlier, "answers": moved})


def test_responses_to_other_prompts_are_told(here: StageContext, tmp_path: Path) -> None:
    other = with_answers(here, tmp_path, lambda name, x: x.roll(1, dims=0))
    with pytest.raises(CheckpointError, match=r"answers.safetensors: not responses to the prompts that its sett"):
        _ = stage.Pretraining(other).true_values


def test_responses_with_partial_credit_are_told(here: StageContext, tmp_path: Path) -> None:
    other = with_answers(here, tmp_path, lambda name, x: x / 2 if name == "scores" else x)
    with pytest.raises(DataError, match=r"^exact values with partial credit: 32 of 32 responses have another score"):
        _ = stage.Pretraining(other).true_values
