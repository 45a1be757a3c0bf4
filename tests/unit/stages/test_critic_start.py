"""The start of RL: a reward model in units of reward, a critic shifted, and an error imposed on what is read."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from tiny import new_policy, plainly, random_batch, tiny
from transformers import GraniteConfig, GraniteForCausalLM, LlamaConfig, LlamaForSequenceClassification, PreTrainedModel

from vcppo.cli.main import main
from vcppo.errors import CheckpointError
from vcppo.models import loading
from vcppo.models.checkpoints import save_model
from vcppo.models.forward import rescale_values
from vcppo.rl.costs import Costs
from vcppo.rl.critic_update import read_final_values, read_values
from vcppo.rl.models import Models
from vcppo.rl.reading import read_outputs
from vcppo.settings.loading import load_settings
from vcppo.stages.context import StageContext
from vcppo.stages.pipeline import run_stages
from vcppo.stages.shared import critic_start
from vcppo.stages.shared.critic_start import LINE_FILE, critic_for
from vcppo.stages.shared.saved_responses import load_responses, responses_file
from vcppo.store.cache import StageFolder, addresses
from vcppo.tasks import make_task
from vcppo.types import RolloutBatch


def context(out: Path, *assignments: str) -> StageContext:
    """RL with these settings, over a random policy, a random reward model, and 32 responses of random tokens."""
    settings = tiny("pretrain.steps=0", *assignments)
    found = addresses(settings)
    tokenizer = make_task(settings.task).tokenizer()
    save_model(new_policy(), tokenizer, StageFolder(out, found["cold-start"]).path / "policy")
    if "reward-model" in found:
        policy = StageFolder(out, found["cold-start"]).path / "policy"
        model = plainly(loading.load_critic(policy, head_seed=3, initial_value=-2.5))
        rescale_values(model, 7.0, 0.0)  # scores that differ
        save_model(model, tokenizer, StageFolder(out, found["reward-model"]).path / "critic")
    if "answers" in found:
        folder = StageFolder(out, found["answers"])
        folder.path.mkdir(parents=True, exist_ok=True)
        batch = random_batch([6, 3, 4, 6] * 8)
        save_file({name: x.contiguous() for name, x in vars(batch).items()}, responses_file(folder.path))
    earlier = {name: StageFolder(out, address) for name, address in found.items() if name not in ("rl", "evaluation")}
    return StageContext(settings, StageFolder(out, found["rl"]), earlier)


def values(critic: PreTrainedModel, batch: RolloutBatch) -> torch.Tensor:
    return read_values(critic, batch, 200)[batch.response_mask]


def test_fitted_scores_are_the_least_squares_line_through_those_of_whole_responses(tmp_path: Path) -> None:
    raw, _ = critic_for(context(tmp_path))
    here = context(tmp_path, "critic.scores=fitted")
    fitted, steps = critic_for(here)
    batch = load_responses(here.earlier["answers"].path)
    scores = read_final_values(raw, batch, 200).numpy()
    slope, intercept = np.polyfit(scores, batch.scores.numpy(), 1)
    torch.testing.assert_close(
        values(fitted, batch), slope * values(raw, batch) + intercept, rtol=1e-4, atol=1e-4
    )  # float32 sums of scores that lie close together
    assert steps == 0
    assert float(read_final_values(fitted, batch, 200).mean()) == pytest.approx(float(batch.scores.mean()), abs=1e-4)


def test_the_line_is_fitted_once_and_a_stage_that_begins_again_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, batch = context(tmp_path, "critic.scores=fitted"), random_batch([5, 2, 6])
    first = values(critic_for(here)[0], batch)
    line = here.folder.path / LINE_FILE
    line.write_text("")  # of a machine that lost its power
    assert torch.equal(values(critic_for(here)[0], batch), first)
    assert json.loads(line.read_text()).keys() == {"slope", "intercept"}

    def read_again(*_: object) -> torch.Tensor:
        raise AssertionError("all responses are read again")

    monkeypatch.setattr(critic_start, "read_final_values", read_again)
    assert torch.equal(values(critic_for(here)[0], batch), first)


@pytest.mark.parametrize("start", [(), ("critic.init=policy", "critic.initial_value=0.5"), ("critic.scores=fitted",)])
def test_an_offset_moves_every_value_alike(tmp_path: Path, start: tuple[str, ...]) -> None:
    batch = random_batch([5, 2, 6])
    plain, _ = critic_for(context(tmp_path / "plain", *start))
    moved, _ = critic_for(context(tmp_path / "moved", *start, "critic.offset=-1.25"))
    torch.testing.assert_close(values(moved, batch), values(plain, batch) - 1.25)


def test_a_head_without_bias_cannot_be_moved_and_that_is_said(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=40, num_labels=1, pad_token_id=0, **sizes)
    critic = plainly(LlamaForSequenceClassification(config).eval())
    with pytest.raises(CheckpointError, match="its head has no bias, expected one that takes a shift of its values"):
        rescale_values(critic, 1.0, -1.0)


def test_pretraining_is_shared_by_offsets_and_profiles_and_not_by_scores() -> None:
    def keys(*assignments: str) -> dict[str, str]:
        return {stage: address.key for stage, address in addresses(tiny(*assignments)).items()}

    plain = keys()
    for said in ("critic.offset=-1", "critic.profile=0:1"):
        moved = keys(said)
        assert {stage for stage in plain if moved[stage] != plain[stage]} == {"rl", "evaluation"}
    fitted = keys("critic.scores=fitted")
    assert {stage for stage in plain if fitted[stage] != plain[stage]} == {"value-pretraining", "rl", "evaluation"}


def test_a_profile_is_added_to_what_is_read_by_position_and_the_critic_is_left_alone(tmp_path: Path) -> None:
    batch = dataclasses.replace(random_batch([5, 2, 6]), truncated=torch.tensor([True, False, False]))
    said = ("critic.profile=1:-1 3:1", "gae.bootstrap_truncated=true")
    here = context(tmp_path, *said)
    critic, _ = critic_for(here)

    def read(*assignments: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        settings = tiny("pretrain.steps=0", "gae.bootstrap_truncated=true", *assignments)
        policy = here.load_first_policy()
        outputs = read_outputs(
            Models(policy, policy, critic, None, None),
            [],
            batch,
            torch.arange(3),
            None,
            step=0,
            value_moments=None,  # type: ignore[arg-type]  # of a critic that learns plain returns nothing is asked
            sampler=None,  # type: ignore[arg-type]
            settings=settings,
            costs=Costs(),
        )
        assert outputs.values is not None
        assert outputs.critic_outputs is not None
        assert outputs.final_values is not None
        return outputs.values, outputs.critic_outputs, outputs.final_values

    (plain, same, last), (imposed, unchanged, moved) = read(), read(said[0])
    on_tokens = torch.tensor([-1.0, -1.0, 0.0, 1.0, 1.0, 1.0])  # constant before 1 and after 3, a line between
    torch.testing.assert_close(imposed - plain, torch.where(batch.response_mask, on_tokens, 0.0))
    assert torch.equal(same, unchanged)
    torch.testing.assert_close(moved - last, torch.tensor([1.0, 0.0, 1.0]))  # after 5, 2 and 6 tokens


def test_a_model_that_can_have_no_critic_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    tokenizer = make_task(tiny().task).tokenizer()
    shapes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = tmp_path / "granite"
    save_model(GraniteForCausalLM(GraniteConfig(vocab_size=len(tokenizer), **ends, **shapes)), tokenizer, model)
    words = (f"model.path={model}", "task.chain_length=3", "task.digits=2", "task.held_out=10")
    said = f"critic.init = policy, model.path = {model}: transformers has no classifier for granite models, so they"
    with pytest.raises(CheckpointError, match=re.escape(said)):
        run_stages(load_settings(assignments=[*words, "critic.init=policy"]), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    dry = CliRunner().invoke(main, ["train", "--dry-run", *(w for word in words for w in ("--set", word))])
    assert dry.exit_code == 2
    assert "no classifier for granite models" in dry.output
    critic_start.check_critic(load_settings(assignments=[*words, "method=grpo"]))
