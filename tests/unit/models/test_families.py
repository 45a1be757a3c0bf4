"""Families without a token classifier, with other logits, dropout elsewhere, or code of their own."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import arithmetic
import pytest
import torch
from click.testing import CliRunner
from refusals import message
from tiny import plainly, random_batch, tiny
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from vcppo.cli.main import main
from vcppo.errors import CheckpointError, ConfigError
from vcppo.models import forward, loading
from vcppo.models.checkpoints import save_model
from vcppo.models.configurations import end_tokens, positions
from vcppo.models.sharding import prepare
from vcppo.settings.critic import NewCriticSettings
from vcppo.settings.model import ComputeSettings, LoraSettings
from vcppo.tasks import make_task

SMALL: dict[str, Any] = {
    "vocab_size": 384,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DROPOUT = (
    *("dropout", "attention_dropout", "hidden_dropout", "residual_dropout", "embedding_dropout", "activation_dropout"),
    *("attn_pdrop", "resid_pdrop", "embd_pdrop"),
)
CODE = {
    "configuration_theirs.py": """
from transformers import LlamaConfig


class TheirConfig(LlamaConfig):
    model_type = "theirs"
""",
    "modeling_theirs.py": """
from transformers import LlamaForCausalLM

from .configuration_theirs import TheirConfig


class Theirs(LlamaForCausalLM):
    config_class = TheirConfig
""",
}


def model_of(kind: str, **more: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {name: size for name, size in SMALL.items() if (kind, name) != ("falcon", "head_dim")}  # which it works out
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**sizes, **more})).eval()
    return model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer") / "model"
    arithmetic.make_model_folder(folder, hidden_size=16, layers=1, heads=2, kv_heads=1)
    return loading.load_tokenizer(folder)


@pytest.mark.parametrize("kind", ["olmo2", "gemma3_text"])
def test_a_critic_without_a_token_classifier_has_a_bias_that_it_keeps(
    kind: str, tokenizer: Any, tmp_path: Path
) -> None:
    save_model(model_of(kind), tokenizer, tmp_path / "policy")
    for number, made in enumerate(
        (
            loading.load_critic(tmp_path / "policy", head_seed=1, initial_value=-0.5),
            loading.new_critic(tmp_path / "policy", NewCriticSettings(layers=1), seed=1, initial_value=-0.5),
        )
    ):
        critic, batch = plainly(made), random_batch([9, 5])
        assert forward.value_head(critic).bias.item() == -0.5
        values = forward.response_values(critic, batch)
        save_model(critic, tokenizer, tmp_path / f"critic-{number}")
        again = plainly(loading.load_critic(tmp_path / f"critic-{number}"))
        torch.testing.assert_close(forward.response_values(again, batch), values)
        theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / f"critic-{number}")
        assert type(theirs).__name__ == type(critic).__name__


def test_a_family_of_which_there_is_no_classifier_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    save_model(model_of("granite"), tokenizer, tmp_path)
    refused = pytest.raises(CheckpointError, match="no classifier for granite models, so they have no critic; expected")
    with refused:
        loading.load_critic(tmp_path, head_seed=1)
    with refused:
        loading.new_critic(tmp_path, NewCriticSettings(), seed=1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("cohere", {"logit_scale": 0.06}),
        ("gemma2", {"final_logit_softcapping": 0.5}),
        ("granite", {"logits_scaling": 8.0}),
        ("modernbert-decoder", {"sep_token_id": 2, "cls_token_id": 1}),
    ],
)
def test_logits_that_are_more_than_a_product_are_refused(
    kind: str, options: dict[str, Any], tokenizer: Any, tmp_path: Path
) -> None:
    save_model(model_of(kind, **options), tokenizer, tmp_path)
    assert "are not those of its output head" in message(loading.load_policy, tmp_path)


@pytest.mark.parametrize("kind", ["opt", "starcoder2", "gpt2", "bloom", "falcon"])
def test_recomputed_passes_drop_nothing(kind: str) -> None:
    """Wherever a family keeps its dropout: in layers, in numbers of modules, or in its configuration."""
    dropped = dict.fromkeys(DROPOUT, 0.5)
    shapes = {"ffn_dim": 32, "word_embed_proj_dim": 16, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128}
    model = model_of(kind, **dropped, **shapes)
    plain = model_of(kind, **dict.fromkeys(dropped, 0.0), **shapes)
    plain.load_state_dict(model.state_dict())
    batch, compute = random_batch([9, 5]), ComputeSettings(gradient_checkpointing=True)
    model = prepare(model, compute, LoraSettings(), seed=0)
    assert model.training
    read = forward.response_logprobs(model, batch, 1.0)[0]
    torch.testing.assert_close(read, forward.response_logprobs(plainly(plain), batch, 1.0)[0])


@pytest.mark.parametrize("kind", ["opt", "falcon", "gemma3_text"])
def test_a_model_that_was_recomputed_is_saved_with_its_own_dropout(kind: str, tokenizer: Any, tmp_path: Path) -> None:
    model = model_of(kind, **dict.fromkeys(DROPOUT, 0.5), ffn_dim=32, word_embed_proj_dim=16)
    save_model(model, tokenizer, tmp_path / "before")
    model = prepare(model, ComputeSettings(gradient_checkpointing=True), LoraSettings(), seed=0)
    save_model(model, tokenizer, tmp_path / "after")
    before, after = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("before", "after"))
    assert after == before
    assert after["attention_dropout"] == 0.5
    assert model.config.attention_dropout == 0.0  # it goes on without


def write_with_code(folder: Path, tokenizer: Any, **code: str) -> None:
    save_model(model_of("llama"), tokenizer, folder)
    for name, content in (CODE | {f"{name}.py": content for name, content in code.items()}).items():
        (folder / name).write_text(content)
    path = folder / "config.json"
    names = {"AutoConfig": "configuration_theirs.TheirConfig", "AutoModelForCausalLM": "modeling_theirs.Theirs"}
    config = json.loads(path.read_text()) | {"model_type": "theirs", "auto_map": names}
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("broken", "code", "said"),
    [
        ("configuration_theirs", "class TheirConfig(:\n", r"configuration_theirs.py, line 1 \(class TheirConfig\(:\)"),
        ("modeling_theirs", "\nclass Theirs\n", r"modeling_theirs.py, line 2 \(class Theirs\): expected ':'"),
        ("modeling_theirs", "import nowhere_to_be_found\n", "imports what is not here .*nowhere_to_be_found"),
        (
            "modeling_theirs",
            "import torch\nfrom transformers import LlamaForNobody\n",
            "its code, modeling_theirs.py, line 2, imports what is not here .*LlamaForNobody",
        ),
    ],
)
def test_code_of_a_model_that_cannot_be_read_is_one_line(
    broken: str, code: str, said: str, tokenizer: Any, tmp_path: Path
) -> None:
    write_with_code(tmp_path, tokenizer, **{broken: code})
    done = CliRunner().invoke(
        main,
        [
            *(
                "cold-start",
                "--tracking-uri",
                "none",
                "--out",
                str(tmp_path / "out"),
                "--set",
                f"model.path={tmp_path}",
            ),
            *("--set", "model.trust_remote_code=true", "--set", "task.name=vcppo.tasks.sums:SumsTask"),
        ],
    )
    assert done.exit_code == 2, done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("CheckpointError")] or [done.output]
    assert re.search(f"{tmp_path}: .*{said}.*; expected ", line)


def test_code_that_came_with_a_model_is_saved_with_it(tokenizer: Any, tmp_path: Path) -> None:
    write_with_code(tmp_path / "given", tokenizer)
    policy = loading.load_policy(tmp_path / "given", trust_remote_code=True)
    save_model(policy, tokenizer, tmp_path / "saved")
    shutil.rmtree(tmp_path / "given")
    again = loading.load_policy(tmp_path / "saved", trust_remote_code=True)
    assert type(again).__name__ == "Theirs"
    assert torch.equal(again.get_output_embeddings().weight, policy.get_output_embeddings().weight)


def test_stretched_positions_count_up_to_where_they_were_stretched() -> None:
    """LongRoPE's factors are those of the longest response in a micro-batch, so that neighbours would change a row."""
    factors = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    config = AutoConfig.for_model("phi3", **{**SMALL, "rope_scaling": factors, "original_max_position_embeddings": 64})
    assert positions(config) == 64
    assert positions(AutoConfig.for_model("phi3", **SMALL)) == 128


def test_a_multimodal_model_is_known_by_its_text(tokenizer: Any, tmp_path: Path) -> None:
    text = {**SMALL, "sliding_window": 64, "eos_token_id": 7}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        "gemma3", text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14}, mm_tokens_per_image=4
    )
    torch.manual_seed(0)
    save_model(AutoModelForCausalLM.from_config(config).eval(), tokenizer, tmp_path)
    (tmp_path / "generation_config.json").unlink()
    policy = loading.load_policy(tmp_path)
    assert end_tokens(policy) == (2, 7)
    assert positions(policy.config) == 128


def test_adapters_say_where_they_can_go() -> None:
    with pytest.raises(ConfigError, match="no such layer in GPT2LMHeadModel; adapters go beside linear layers"):
        prepare(model_of("gpt2"), ComputeSettings(), LoraSettings(rank=2), seed=0)


def test_tokens_without_a_name_are_no_text() -> None:
    from vcppo.rl.sampler import step_starts

    task = make_task(tiny().task)
    names = task.tokenizer()
    assert step_starts([[len(names) + 1, len(names) + 2]], task, names) == [[0]]
