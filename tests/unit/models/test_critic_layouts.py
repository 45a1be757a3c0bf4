"""A critic in every trainer's layout has the values that its trainer reads; what is no critic is one line."""

import json
import pickle
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import new_policy, plainly, random_batch, tiny
from torch import Tensor
from transformers import AutoModel, GPT2Config, LlamaConfig, OPTConfig, PretrainedConfig, PreTrainedModel

from vcppo.errors import CheckpointError
from vcppo.models import forward, loading
from vcppo.models.checkpoints import save_model
from vcppo.models.critic_folders import convert_command, find_folder, merge_command
from vcppo.models.critic_layouts import WRAPPED, find_layout
from vcppo.models.distributed import World
from vcppo.rl.critic_update import read_values
from vcppo.tasks import make_task

LENGTHS = [5, 1, 3, 7, 2]
BATCH = random_batch(LENGTHS)
SHAPE = {"vocab_size": 20, "initializer_range": 0.5}
LLAMA = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, **SHAPE)
GPT2 = GPT2Config(n_embd=16, n_layer=2, n_head=2, **SHAPE)
OPT = OPTConfig(hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16, **SHAPE)
BIAS, MEAN, STD = 0.7, -1.5, 2.5


class Theirs:
    """A base model with a linear head, as every trainer has one, and the values that it reads."""

    def __init__(self, config: PretrainedConfig = LLAMA) -> None:
        torch.manual_seed(0)
        self.config = config
        self.base: PreTrainedModel = AutoModel.from_config(config).eval()
        self.head = 0.1 * torch.randn(1, 16)

    def values(self, bias: float = 0.0, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """V before each token, row by row without padding: (head - mean) / std at the token before it."""
        values = torch.zeros(BATCH.response_mask.shape)
        for row, (prompt, length) in enumerate(zip(BATCH.prompt_lengths.tolist(), LENGTHS, strict=True)):
            with torch.inference_mode():
                hidden = self.base(input_ids=BATCH.input_ids[row : row + 1, : prompt + length]).last_hidden_state
            after = (hidden @ self.head.T).squeeze(-1)[0] + bias
            values[row, :length] = ((after - mean) / std)[:-1][-length:]
        return values

    def write(self, folder: Path, heads: dict[str, Tensor], architecture: str, before: str = "", **config: Any) -> Path:
        """Write config.json and weights, the body's names with the base model's prefix and `before`."""
        described = self.config.to_dict() | {"architectures": [architecture]} | config
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(described), encoding="utf-8")
        prefix = before + {"llama": "model.", "gpt2": "transformer.", "opt": "model."}[self.config.model_type]
        body = {prefix + name: x.clone() for name, x in self.base.state_dict().items()}
        save_file(body | heads, folder / "model.safetensors", metadata={"format": "pt"})
        return folder


def openrlhf(name: str, **config: Any) -> Callable[[Theirs, Path], Path]:
    return lambda theirs, folder: theirs.write(folder, {f"{name}.weight": theirs.head}, "CriticModel", **config)


def with_bias(
    name: str, architecture: str, before: str = "", more: dict[str, Tensor] | None = None
) -> Callable[[Theirs, Path], Path]:
    def write(theirs: Theirs, folder: Path) -> Path:
        heads = {f"{name}.weight": theirs.head, f"{name}.bias": torch.tensor([BIAS])}
        return theirs.write(folder, heads | (more or {}), architecture, before)

    return write


def in_a_file_of_its_own(theirs: Theirs, folder: Path) -> Path:
    theirs.write(folder, {"lm_head.weight": torch.randn(20, 16)}, "LlamaForCausalLM")
    head = {"v_head.summary.weight": theirs.head, "v_head.summary.bias": torch.tensor([BIAS])}
    save_file(head, folder / "value_head.safetensors", metadata={"format": "pt"})
    return folder


def in_two_files(theirs: Theirs, folder: Path) -> Path:
    openrlhf("value_head")(theirs, folder)
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    save_file({"value_head.weight": theirs.head}, folder / "model-2.safetensors", metadata={"format": "pt"})
    body = {f"model.{name}": "model-1.safetensors" for name in theirs.base.state_dict()}
    table = {"metadata": {}, "weight_map": body | {"value_head.weight": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(table), encoding="utf-8")
    return folder


def deep(*parts: str) -> Callable[[Theirs, Path], Path]:
    def write(theirs: Theirs, folder: Path) -> Path:
        with_bias("score", "LlamaForTokenClassification")(theirs, folder.joinpath(*parts))
        edit(folder.joinpath(*parts) / "config.json", num_labels=1)
        return folder

    return write


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


LM_HEAD = {"lm_head.weight": torch.ones(20, 16)}
NORMALISED = {"normalize_reward": True, "mean": MEAN, "std": STD}
NAMED = {"value_head_prefix": "critic_head"}
# how it is written, what the trainer adds to or does with the head's product, and the layout's name
LAYOUTS: dict[str, tuple[Callable[[Theirs, Path], Path], dict[str, float], str]] = {
    "verl, weights beside the configuration": (deep("critic", "huggingface"), {"bias": BIAS}, "token classifier"),
    "verl, merged": (deep("merged"), {"bias": BIAS}, "token classifier"),
    "verl, merged as a language model": (with_bias("score", "LlamaForCausalLM"), {"bias": BIAS}, "token classifier"),
    "NeMo-RL": (deep("value", "weights", "model", "consolidated"), {"bias": BIAS}, "token classifier"),
    "OpenRLHF before 0.6, Open-Reasoner-Zero": (openrlhf("value_head"), {}, "value head of OpenRLHF or"),
    "OpenRLHF": (openrlhf("score", normalize_reward=False), {}, "value head of OpenRLHF"),
    "OpenRLHF, normalised": (openrlhf("score", **NORMALISED), {"mean": MEAN, "std": STD}, "value head of OpenRLHF"),
    "OpenRLHF, measured but not normalised": (openrlhf("score", **NORMALISED | {"normalize_reward": False}), {}, "val"),
    "OpenRLHF, another name": (openrlhf("critic_head", **NAMED), {}, "value head `critic_head`"),
    "OpenRLHF, several files": (in_two_files, {}, "value head of OpenRLHF or"),
    "TRL": (with_bias("v_head.summary", "LlamaForCausalLM", more=LM_HEAD), {"bias": BIAS}, "value head of TRL"),
    "TRL, wrapped": (
        with_bias("v_head.summary", "LlamaForCausalLM", WRAPPED, {f"{WRAPPED}lm_head.weight": torch.ones(20, 16)}),
        {"bias": BIAS},
        "value head of TRL",
    ),
    "LLaMA-Factory": (in_a_file_of_its_own, {"bias": BIAS}, "value head of TRL"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_critic_in_this_layout_has_the_values_of_its_trainer(layout: str, tmp_path: Path) -> None:
    write, done, name = LAYOUTS[layout]
    theirs = Theirs()
    folder = write(theirs, tmp_path / "theirs")
    wanted = theirs.values(**done)
    assert float(wanted[BATCH.response_mask].std()) > 0.1
    critic = plainly(loading.load_critic(folder))
    torch.testing.assert_close(read_values(critic, BATCH, 100), wanted, rtol=0, atol=1e-6)
    assert find_layout(find_folder(folder), folder).name.startswith(name)

    save_model(critic, make_task(tiny().task).tokenizer(), tmp_path / "ours")
    again = plainly(loading.load_critic(tmp_path / "ours"))
    torch.testing.assert_close(read_values(again, BATCH, 100), wanted, rtol=0, atol=1e-6)
    forward.rescale_values(again, 2.0, 1.0)  # its head has a bias, as training may need
    torch.testing.assert_close(
        read_values(again, BATCH, 100), torch.where(BATCH.response_mask, 2.0 * wanted + 1.0, 0.0), rtol=0, atol=2e-6
    )


def test_a_head_called_otherwise_by_its_architecture_is_found_there(tmp_path: Path) -> None:
    """GPT-2's classifier is called `classifier`, TRL's first critics were of this family."""
    theirs = Theirs(GPT2)
    with_bias("v_head.summary", "GPT2LMHeadModel")(theirs, tmp_path)
    critic = plainly(loading.load_critic(tmp_path))
    assert type(critic).__name__ == "GPT2ForTokenClassification"
    torch.testing.assert_close(read_values(critic, BATCH, 100), theirs.values(BIAS), rtol=0, atol=1e-6)


def test_where_there_is_no_token_classifier_a_head_becomes_a_sequence_classifiers(tmp_path: Path) -> None:
    theirs = Theirs(OPT)
    openrlhf("value_head")(theirs, tmp_path / "product")
    critic = plainly(loading.load_critic(tmp_path / "product"))
    assert type(critic).__name__ == "OPTForSequenceClassification"
    assert forward.value_head(critic).bias is None  # as transformers has it, and others load it
    torch.testing.assert_close(read_values(critic, BATCH, 100), theirs.values(), rtol=0, atol=1e-6)
    with_bias("v_head.summary", "OPTForCausalLM")(theirs, tmp_path / "more")
    critic = plainly(loading.load_critic(tmp_path / "more"))
    assert type(critic).__name__ == "OPTForSequenceClassification"
    torch.testing.assert_close(read_values(critic, BATCH, 100), theirs.values(BIAS), rtol=0, atol=1e-6)


def test_normalisation_is_told_and_applied_once(tmp_path: Path) -> None:
    theirs = Theirs()
    openrlhf("score", **NORMALISED)(theirs, tmp_path / "on")
    (note,) = find_layout(find_folder(tmp_path / "on"), tmp_path / "on").notes
    assert note == "values are (head - -1.5) / 2.5, by config.json's normalize_reward"
    assert not {"normalize_reward", "mean", "std"} & set(loading.load_critic(tmp_path / "on").config.to_dict())
    openrlhf("score", **NORMALISED | {"normalize_reward": False})(theirs, tmp_path / "off")
    (note,) = find_layout(find_folder(tmp_path / "off"), tmp_path / "off").notes
    assert "which normalize_reward = false leaves unused" in note
    openrlhf("score", **NORMALISED | {"std": 0.0})(theirs, tmp_path / "zero")
    assert "normalises values by std = 0.0, expected a number above 0" in refusal(tmp_path / "zero")


def test_other_processes_build_the_same_critic_without_weights(tmp_path: Path, monkeypatch: Any) -> None:
    openrlhf("value_head", **NORMALISED)(Theirs(), tmp_path)
    alone = loading.load_critic(tmp_path)
    for module in ("loading", "critic_layouts"):
        monkeypatch.setattr(f"vcppo.models.{module}.world", lambda: World(1, 2, torch.device("cpu")))
    other = loading.load_critic(tmp_path)
    assert other.device.type == "meta"
    assert type(other) is type(alone)
    assert other.config.to_dict() == alone.config.to_dict()


# ---- what is refused ----


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        loading.load_critic(path)
    said = str(caught.value)
    assert str(path) in said
    assert "\n" not in said
    return said


def test_an_unknown_head_is_refused_with_the_names_found_and_wanted(tmp_path: Path) -> None:
    heads = {"v_head.0.weight": torch.eye(16), "v_head.2.weight": torch.ones(1, 16), **LM_HEAD}
    Theirs().write(tmp_path, heads, "LlamaForCausalLM")  # as trlX has it, a head of two layers
    said = refusal(tmp_path)
    assert "these could be one: lm_head.weight, v_head.0.weight, v_head.2.weight; expected one of " in said
    assert "score.weight, classifier.weight, value_head.weight, v_head.summary.weight" in said
    edit(tmp_path / "config.json", value_head_prefix="v_head.2")
    assert loading.load_critic(tmp_path).config.num_labels == 1


def test_a_head_of_several_outputs_of_another_width_or_not_finite_is_refused(tmp_path: Path) -> None:
    theirs = Theirs()
    for number, (head, said) in enumerate(
        [
            (torch.ones(3, 16), "value_head.weight has shape (3, 16), expected a head with one output"),
            (torch.ones(1, 8), "value_head.weight has shape (1, 8), expected (1, 16)"),
            (torch.full((1, 16), float("nan")), "value_head.weight holds NaN or infinity"),
        ]
    ):
        folder = theirs.write(tmp_path / str(number), {"value_head.weight": head}, "CriticModel")
        assert said in refusal(folder)


def test_shards_of_verl_are_never_opened_and_its_merger_is_named(tmp_path: Path) -> None:
    """The configuration is there; the command given is complete, and what it writes is found afterwards."""
    step = tmp_path / "global step 1"
    shards = step / "critic"
    theirs = Theirs()
    (shards / "huggingface").mkdir(parents=True)
    (shards / "huggingface" / "config.json").write_text(json.dumps(theirs.config.to_dict()), encoding="utf-8")
    for rank in range(2):
        (shards / f"model_world_size_2_rank_{rank}.pt").write_bytes(pickle.dumps({"a": 1}))
    wanted = f"python -m verl.model_merger merge --backend fsdp --local_dir '{shards}' --target_dir '{shards}/merged'"
    assert merge_command(shards) == wanted
    for path in (step, shards, shards / "huggingface"):
        assert refusal(path).endswith(f"FSDP shards of verl, which are pickles; expected safetensors: {wanted}")
    deep("merged")(theirs, shards)
    for path in (step, shards):
        torch.testing.assert_close(
            read_values(plainly(loading.load_critic(path)), BATCH, 100), theirs.values(BIAS), rtol=0, atol=1e-6
        )


def test_shards_of_megatron_nemo_and_deepspeed_are_named(tmp_path: Path) -> None:
    (tmp_path / "megatron" / "dist_ckpt").mkdir(parents=True)
    assert "--backend megatron --is-value-model --local_dir" in refusal(tmp_path / "megatron")
    model = tmp_path / "nemo" / "value" / "weights" / "model"
    model.mkdir(parents=True)
    (model / "shard-00001-model-00001-of-00001.safetensors").write_bytes(b"")
    assert f"expected the folder {model / 'consolidated'}" in refusal(tmp_path / "nemo")
    (tmp_path / "zero" / "global_step7").mkdir(parents=True)
    (tmp_path / "zero" / "global_step7" / "mp_rank_00_model_states.pt").write_bytes(b"")
    assert "--critic.save_value_network" in refusal(tmp_path / "zero")
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert "adapters without the model that they adapt" in refusal(tmp_path / "lora")


def test_nemo_keeps_the_tokenizer_elsewhere(tmp_path: Path) -> None:
    deep("value", "weights", "model", "consolidated")(Theirs(), tmp_path)
    make_task(tiny().task).tokenizer().save_pretrained(tmp_path / "value" / "tokenizer")
    assert find_folder(tmp_path / "value").tokenizer == tmp_path / "value" / "tokenizer"
    assert find_folder(tmp_path / "value" / "weights").weights == tmp_path / "value/weights/model/consolidated"


def test_pickled_weights_are_not_read_and_the_command_given_converts_them(tmp_path: Path) -> None:
    """As TRL wrote before safetensors were the default, here in two files."""
    theirs, folder = Theirs(), tmp_path / "it's old"
    write = with_bias("v_head.summary", "LlamaForCausalLM")
    write(theirs, folder)
    (folder / "model.safetensors").unlink()
    head = {"v_head.summary.weight": theirs.head, "v_head.summary.bias": torch.tensor([BIAS])}
    torch.save({f"model.{name}": x for name, x in theirs.base.state_dict().items()}, folder / "pytorch_model-1.bin")
    torch.save(head, folder / "pytorch_model-2.bin")
    said = refusal(folder)
    command = convert_command(folder)
    assert said.endswith(f"which is not read; expected safetensors: {command}")
    python, *arguments = shlex.split(command)
    assert python == "python"
    subprocess.run([sys.executable, *arguments], check=True, timeout=120)
    critic = plainly(loading.load_critic(folder))
    torch.testing.assert_close(read_values(critic, BATCH, 100), theirs.values(BIAS), rtol=0, atol=1e-6)


def test_a_policy_beside_a_critic_is_no_critic(tmp_path: Path) -> None:
    save_model(new_policy(), make_task(tiny().task).tokenizer(), tmp_path)
    assert "could be one: lm_head.weight; expected" in refusal(tmp_path)
