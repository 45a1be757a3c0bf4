"""What is read from policies and critics, and what is refused as one."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import message
from safetensors.torch import load_file, save_file
from tiny import new_policy, plainly, random_batch, tiny
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from vcppo.errors import DiskError
from vcppo.models import forward, loading
from vcppo.models.checkpoints import load_state, save_model, save_state
from vcppo.models.sharding import named_weights
from vcppo.rl.critic_update import read_final_values, read_values
from vcppo.rl.policy_update import read_logprobs
from vcppo.tasks import make_task

LENGTHS = [5, 1, 3, 7, 2]


@pytest.fixture
def critic(folder: Path) -> PreTrainedModel:
    critic = plainly(loading.load_critic(folder, head_seed=3))
    with torch.no_grad():
        forward.value_head(critic).weight.mul_(30.0)  # values as different as a trained critic's
    return critic


def test_a_value_is_read_from_the_token_before_the_one_it_judges(critic: PreTrainedModel) -> None:
    batch = random_batch(LENGTHS)
    with torch.inference_mode():
        values = forward.response_values(critic, batch)
        for row, (prompt, length) in enumerate(zip(batch.prompt_lengths.tolist(), LENGTHS, strict=True)):
            alone = critic(input_ids=batch.input_ids[row : row + 1, : prompt + length]).logits[0, :, 0]
            torch.testing.assert_close(values[row, :length], alone[prompt - 1 : prompt + length - 1])
            assert values[row, length:].tolist() == [0.0] * (values.shape[1] - length)
            final = forward.last_token_values(critic, batch)[row]
            torch.testing.assert_close(final, alone[prompt + length - 1])


def test_a_value_does_not_know_the_token_it_judges_nor_what_follows(critic: PreTrainedModel) -> None:
    batch = random_batch([6], prompt_lengths=[3])
    changed = batch.take(torch.tensor([0]))
    changed.input_ids[0, 3 + 2] = (changed.input_ids[0, 3 + 2] + 1) % 20  # the generated token number 2
    with torch.inference_mode():
        before, after = (forward.response_values(critic, b)[0] for b in (batch, changed))
    torch.testing.assert_close(before[:3], after[:3], rtol=0, atol=0)
    assert (before[3:] != after[3:]).all()


def test_logprobs_and_entropy_are_those_of_the_generated_tokens() -> None:
    policy, batch = new_policy(), random_batch(LENGTHS)
    with torch.inference_mode():
        logprobs, entropy = forward.response_logprobs(policy, batch, 0.7)
        for row, (prompt, length) in enumerate(zip(batch.prompt_lengths.tolist(), LENGTHS, strict=True)):
            ids = batch.input_ids[row : row + 1, : prompt + length]
            rows = torch.log_softmax(policy(input_ids=ids).logits[0, prompt - 1 : -1] / 0.7, dim=-1)
            want = rows.gather(1, ids[0, prompt:, None])[:, 0]
            torch.testing.assert_close(logprobs[row, :length], want, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(entropy[row, :length], -(rows.exp() * rows).sum(-1), rtol=1e-5, atol=1e-5)
            assert not logprobs[row, length:].any()
            assert not entropy[row, length:].any()


def test_reading_in_micro_batches_is_reading_at_once(critic: PreTrainedModel) -> None:
    policy, batch = new_policy(), random_batch(LENGTHS)
    for few, many in [(1, 10**6), (12, 10**6)]:
        torch.testing.assert_close(read_values(critic, batch, few), read_values(critic, batch, many))
        torch.testing.assert_close(read_final_values(critic, batch, few), read_final_values(critic, batch, many))
        torch.testing.assert_close(
            read_logprobs(policy, batch, temperature=1.0, max_tokens=few),
            read_logprobs(policy, batch, temperature=1.0, max_tokens=many),
        )


def test_weights_follow_the_seed_and_leave_the_global_state_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    first, again, other = new_policy(seed=0), new_policy(seed=0), new_policy(seed=1)
    heads = [forward.value_head(loading.load_critic(folder, head_seed=s)).weight for s in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_new_head_is_small_whatever_the_width(tmp_path: Path) -> None:
    assignments = ("model.hidden_size=1024", "model.intermediate_size=8", "model.heads=2", "model.kv_heads=2")
    save_model(new_policy(*assignments), make_task(tiny().task).tokenizer(), tmp_path / "wide")
    head = forward.value_head(loading.load_critic(tmp_path / "wide", head_seed=0))
    assert float(head.weight.detach().std()) == pytest.approx(
        1 / 1025, rel=0.1
    )  # 1024 draws: 2 % is one standard error
    assert not head.bias.any()


def test_a_saved_critic_has_the_same_values_when_it_is_loaded_again(critic: PreTrainedModel, tmp_path: Path) -> None:
    batch = random_batch(LENGTHS)
    save_model(critic, make_task(tiny().task).tokenizer(), tmp_path / "critic")
    again = plainly(loading.load_critic(tmp_path / "critic"))
    assert torch.equal(read_values(again, batch, 100), read_values(critic, batch, 100))


def test_no_dropout_is_active_whatever_the_checkpoint_asks_for(folder: Path, tmp_path: Path) -> None:
    policy = loading.load_policy(folder)
    policy.config.attention_dropout = 0.5
    policy.config.classifier_dropout = 0.5
    save_model(policy, make_task(tiny().task).tokenizer(), tmp_path / "dropping")
    for model in (loading.load_policy(tmp_path / "dropping"), loading.load_critic(tmp_path / "dropping", head_seed=0)):
        assert not any(module.training for module in model.modules())
    assert not any(module.training for module in new_policy().modules())


def test_what_is_no_checkpoint_is_one_line(folder: Path, critic: PreTrainedModel, tmp_path: Path) -> None:
    for load in (loading.load_policy, loading.load_critic, loading.load_tokenizer):
        assert "no config.json there" in message(load, tmp_path / "nothing")
    tokenizer = make_task(tiny().task).tokenizer()
    broken = tmp_path / "broken"
    save_model(loading.load_policy(folder), tokenizer, broken)
    (broken / "model.safetensors").write_bytes(b"\0" * 20)
    assert "expected a causal language model" in message(loading.load_policy, broken)
    (broken / "model.safetensors").unlink()
    assert "expected a causal language model" in message(loading.load_policy, broken)
    (broken / "config.json").write_text("{")
    assert "expected a causal language model" in message(loading.load_policy, broken)


def test_a_policy_is_no_critic_and_a_critic_no_policy(folder: Path, critic: PreTrainedModel, tmp_path: Path) -> None:
    save_model(critic, make_task(tiny().task).tokenizer(), tmp_path / "critic")
    assert "1 of its weights are missing: lm_head.weight" in message(loading.load_policy, tmp_path / "critic")
    said = message(loading.load_critic, folder)
    assert "no value head in this LlamaForCausalLM; of its 12 weights these could be one: lm_head.weight" in said


def test_tied_embeddings_are_no_missing_weights(tmp_path: Path) -> None:
    policy = new_policy()
    policy.config.tie_word_embeddings = True
    policy.tie_weights()
    save_model(policy, make_task(tiny().task).tokenizer(), tmp_path / "tied")
    again = loading.load_policy(tmp_path / "tied")
    assert again.lm_head.weight is again.model.embed_tokens.weight


def test_a_state_is_read_back_or_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.pt"
    assert load_state(path) is None
    save_state(path, {"step": 3, "weights": {"w": torch.arange(4.0)}})
    state = load_state(path)
    assert state is not None
    assert state["weights"]["w"].tolist() == [0, 1, 2, 3]
    assert [file.name for file in path.parent.iterdir()] == ["state.pt"]
    whole = path.read_bytes()
    for content in (b"", b"garbage of some length", whole[: len(whole) // 2], b"\x80\x02cos\nsystem\n."):
        path.write_bytes(content)
        assert "not a readable state" in message(load_state, path)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.ESTALE])
def test_a_state_that_cannot_be_read_just_now_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What is called damaged is moved aside, and a run begins again from its first step."""
    path = tmp_path / "state.pt"
    save_state(path, {"step": 3})

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", refuse)
        with pytest.raises(DiskError, match=rf"state\.pt: cannot be read now \({os.strerror(number)}\); it stays"):
            load_state(path)
    assert load_state(path) == {"step": 3}


def test_memory_that_ran_out_is_no_damage_of_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path / "state.pt", {"step": 3})

    def refuse(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(torch.OutOfMemoryError):
        load_state(tmp_path / "state.pt")


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_a_tokenizer_splits_text_as_before_it_was_saved_whatever_the_policy(tmp_path: Path, architecture: str) -> None:
    tokenizer = make_task(tiny().task).tokenizer()
    save_model(new_policy(f"model.architecture={architecture}"), tokenizer, tmp_path / "policy")
    text = make_task(tiny().task).held_out_prompts()[0].text
    loaded = loading.load_tokenizer(tmp_path / "policy")
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.eos_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_is_named_once_as_in_the_checkpoint(tmp_path: Path, tied: bool) -> None:
    policy = new_policy()
    if tied:
        policy.config.tie_word_embeddings = True
        policy.lm_head.weight = policy.model.embed_tokens.weight
    policy.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    found = list(named_weights(policy))
    assert ("lm_head.weight" in saved) != tied
    assert sorted(name for name, _ in found) == sorted(saved)
    for name, tensor in found:
        assert torch.equal(tensor, saved[name])
        assert not tensor.requires_grad


# ---- critics and reward models of others ----


SMALL = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}
GATED = {**SMALL, "intermediate_size": 32, "num_key_value_heads": 1, "bos_token_id": None, "eos_token_id": 1}
SEQUENCE_CLASSIFIERS: dict[str, dict[str, Any]] = {
    "llama": GATED,
    "qwen2": GATED,
    "qwen3": {**GATED, "head_dim": 8},
    "mistral": GATED,
    "gemma2": {**GATED, "head_dim": 8},
    "olmo2": GATED,  # there is no token classifier of it
    "gpt2": {"vocab_size": 20, "n_embd": 16, "n_layer": 2, "n_head": 2, "pad_token_id": 0},
    "gpt_neox": {**SMALL, "intermediate_size": 32},
    "opt": {**SMALL, "ffn_dim": 32, "word_embed_proj_dim": 16},
}


def classifier(path: Path, kind: Any, model_type: str, **options: Any) -> PreTrainedModel:
    """A classifier as its owner saves it, with weights that tell tokens apart."""
    config = AutoConfig.for_model(model_type, **{"num_labels": 1, "initializer_range": 0.5, **options})
    torch.manual_seed(0)
    model: PreTrainedModel = kind.from_config(config).eval()
    model.save_pretrained(path)
    return model


@pytest.mark.parametrize("model_type", SEQUENCE_CLASSIFIERS)
def test_a_reward_model_of_others_is_a_critic_with_its_own_scores(model_type: str, tmp_path: Path) -> None:
    options = SEQUENCE_CLASSIFIERS[model_type]
    theirs = classifier(tmp_path / "theirs", AutoModelForSequenceClassification, model_type, **options)
    assert "score.bias" not in load_file(tmp_path / "theirs" / "model.safetensors")
    critic, batch = plainly(loading.load_critic(tmp_path / "theirs")), random_batch(LENGTHS)
    totals = (batch.prompt_lengths + batch.lengths).tolist()
    with torch.inference_mode():
        scores = [theirs(input_ids=row[None, :n]).logits[0, 0] for row, n in zip(batch.input_ids, totals, strict=True)]
    assert max(scores) - min(scores) > 0.05
    torch.testing.assert_close(read_final_values(critic, batch, 100), torch.stack(scores), rtol=1e-4, atol=1e-5)

    forward.response_values(critic, batch).sum().backward()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter -= 0.01 * parameter.grad.clamp(-1, 1) if parameter.grad is not None else 0.0
    learnt = read_values(critic, batch, 100)
    save_model(critic, make_task(tiny().task).tokenizer(), tmp_path / "saved")
    assert torch.equal(read_values(plainly(loading.load_critic(tmp_path / "saved")), batch, 100), learnt)
    assert type(AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")) is type(theirs)


@pytest.mark.parametrize("labels", [2, 3, 5])
@pytest.mark.parametrize("kind", [AutoModelForSequenceClassification, AutoModelForTokenClassification])
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_more_labels_than_one_are_refused(model_type: str, kind: Any, labels: int, tmp_path: Path) -> None:
    theirs = classifier(tmp_path, kind, model_type, **SEQUENCE_CLASSIFIERS[model_type], num_labels=labels)
    said = f"{type(theirs).__name__} with {labels} labels, expected a critic, which is a token or sequence classifier"
    assert said in message(loading.load_critic, tmp_path)


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("bert", {**SMALL, "intermediate_size": 32}),
        ("roberta", {**SMALL, "intermediate_size": 32}),
        ("deberta-v2", {**SMALL, "intermediate_size": 32, "pooler_hidden_size": 16}),
        ("modernbert", {**SMALL, "intermediate_size": 32, "cls_token_id": 1, "sep_token_id": 2}),
        ("distilbert", {"vocab_size": 20, "dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2}),
        ("t5", {"vocab_size": 20, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}),
        ("canine", {**SMALL, "intermediate_size": 32}),
    ],
)
def test_a_reward_model_that_looks_ahead_is_refused(model_type: str, options: dict[str, Any], tmp_path: Path) -> None:
    classifier(tmp_path, AutoModelForSequenceClassification, model_type, **options)
    said = message(loading.load_critic, tmp_path)
    assert f"{model_type} models read what follows a token too, expected a decoder as critic" in said


def test_a_token_classifier_without_its_bias_is_refused(critic: PreTrainedModel, tmp_path: Path) -> None:
    save_model(critic, make_task(tiny().task).tokenizer(), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["score.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "1 of its weights are missing: score.bias" in message(loading.load_critic, tmp_path)


def test_a_head_that_is_more_than_one_product_is_refused(tmp_path: Path) -> None:
    """As reward models with a head of two layers have it, saved as score.0 and score.2."""
    classifier(tmp_path, AutoModelForSequenceClassification, "llama", **GATED)
    weights = load_file(tmp_path / "model.safetensors")
    weights |= {"score.0.weight": torch.eye(16), "score.2.weight": weights.pop("score.weight")}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    said = message(loading.load_critic, tmp_path)
    assert "these could be one: score.0.weight, score.2.weight; expected one of score.weight, classifier.weight" in said


# ---- weights that are no numbers ----


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("lm_head.weight", (3, 1), float("nan")),
        ("model.embed_tokens.weight", (0, 0), float("nan")),
        ("model.norm.weight", (15,), float("inf")),
        ("model.layers.0.mlp.down_proj.weight", (15, 31), -float("inf")),
        ("model.layers.0.self_attn.q_proj.weight", (2, 2), float("nan")),
        ("model.layers.0.input_layernorm.weight", (0,), float("inf")),
    ],
)
def test_weights_that_are_not_finite_are_refused_by_name(
    folder: Path, tmp_path: Path, name: str, place: Any, value: float
) -> None:
    save_model(loading.load_policy(folder), make_task(tiny().task).tokenizer(), tmp_path / "policy")
    weights = load_file(tmp_path / "policy" / "model.safetensors")
    weights[name][place] = value
    save_file(weights, tmp_path / "policy" / "model.safetensors", metadata={"format": "pt"})
    said = f"{name} holds NaN or infinity, expected finite weights"
    assert said in message(loading.load_policy, tmp_path / "policy")
    if name != "lm_head.weight":
        assert said in message(lambda path: loading.load_critic(path, head_seed=0), tmp_path / "policy")


def test_a_saved_critic_whose_head_is_not_finite_is_refused(critic: PreTrainedModel, tmp_path: Path) -> None:
    with torch.no_grad():
        forward.value_head(critic).bias.fill_(float("nan"))
    save_model(critic, make_task(tiny().task).tokenizer(), tmp_path / "critic")
    assert "score.bias holds NaN or infinity" in message(loading.load_critic, tmp_path / "critic")
