"""The tokens that end a response: those of the tokenizer and of the model's files, in every process."""

import json
from pathlib import Path
from typing import Any

import arithmetic
import pytest
import torch
from refusals import message
from tiny import new_policy, tiny

from vcppo.engines.base import Sampling
from vcppo.engines.torch.engine import TorchEngine
from vcppo.models import loading
from vcppo.models.checkpoints import save_model
from vcppo.models.configurations import end_tokens
from vcppo.models.distributed import World
from vcppo.models.response_ends import turn_end
from vcppo.tasks import make_task

PAD, TURN, END = range(3)  # of the tokenizer in arithmetic.py: <|endoftext|>, <|im_start|>, and <|im_end|>, its end
WORD = 70  # text to it

# what config.json and generation_config.json name (none: no such file), and the ends that follow, the tokenizer's first
ENDS: dict[str, tuple[Any, Any, list[int]]] = {
    "both as the tokenizer": (END, END, [END]),
    "config names another, as early Qwen2.5 and Qwen3 base models do": (PAD, None, [END, PAD]),
    "both name another": (PAD, PAD, [END, PAD]),
    "each names its own": (PAD, TURN, [END, PAD, TURN]),
    "generation config names several": (PAD, [TURN, PAD], [END, PAD, TURN]),
    "config names several": ([TURN, PAD], None, [END, PAD, TURN]),
    "neither names one": (None, None, [END]),
    "a word, because somebody wants it": (None, [WORD], [END, WORD]),
    "tokens that the policy does not have": (5000, [-1, 328], [END]),
}


def edit(path: Path, **changes: Any) -> None:
    told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(told | changes), encoding="utf-8")


def with_ends(folder: Path, in_config: Any, in_generation: Any, architecture: str = "qwen2") -> Path:
    arithmetic.make_model_folder(folder, architecture, hidden_size=16, layers=1, heads=2, kv_heads=1)
    edit(folder / "config.json", eos_token_id=in_config)
    (folder / "generation_config.json").unlink()
    if in_generation is not None:
        edit(folder / "generation_config.json", eos_token_id=in_generation)
    return folder


@pytest.mark.parametrize("case", ENDS)
def test_the_tokenizers_end_is_among_the_ends_and_what_is_saved_says_so(case: str, tmp_path: Path) -> None:
    *named, wanted = ENDS[case]
    policy = loading.load_policy(with_ends(tmp_path / "given", *named))
    save_model(policy, loading.load_tokenizer(tmp_path / "given"), tmp_path / "saved")
    for file in ("config.json", "generation_config.json"):
        told = json.loads((tmp_path / "saved" / file).read_text(encoding="utf-8"))["eos_token_id"]
        assert told == (wanted if len(wanted) > 1 else wanted[0])
    for found in (policy, loading.load_policy(tmp_path / "saved")):
        assert list(end_tokens(found)) == wanted
        responses = TorchEngine(found).generate([[9, 8, 7]] * 200, Sampling(3.0, 1.0, 60), seed=0)
        assert {response.tokens[-1] for response in responses if response.stop_reason == "stop"} == set(wanted)
        assert not any(set(wanted) & set(response.tokens[:-1]) for response in responses)


def test_what_an_architecture_ends_with_unless_told_counts_where_it_is_no_word(tmp_path: Path) -> None:
    """Llama's default is token 2; here that is <|im_end|>, and in the second tokenizer a digit."""
    folder = with_ends(tmp_path / "special", PAD, None, "llama")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["eos_token_id"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    edit(folder / "tokenizer_config.json", eos_token=arithmetic.PAD)
    assert end_tokens(loading.load_policy(folder)) == (PAD, END)

    tokenizer = make_task(tiny().task).tokenizer()
    assert not tokenizer.convert_ids_to_tokens(2).startswith("<")
    policy = new_policy()
    policy.config.eos_token_id = policy.generation_config.eos_token_id = 2
    save_model(policy, tokenizer, tmp_path / "word")
    assert end_tokens(loading.load_policy(tmp_path / "word")) == (tokenizer.eos_token_id,)


def base_model(folder: Path, **tokenizer: Any) -> Path:
    """One that names <|endoftext|> everywhere, and whose chat template closes turns with <|im_end|>."""
    edit(with_ends(folder, PAD, PAD) / "tokenizer_config.json", eos_token=arithmetic.PAD, **tokenizer)
    return folder


def test_what_closes_a_turn_ends_the_responses_of_a_base_model_too(tmp_path: Path) -> None:
    policy = loading.load_policy(base_model(tmp_path / "policy"))
    assert end_tokens(policy) == (PAD, END)
    save_model(policy, loading.load_tokenizer(tmp_path / "policy"), tmp_path / "saved")
    assert end_tokens(loading.load_policy(tmp_path / "saved")) == (PAD, END)


OF_A_ROLE = "{{ 'A: ' if message['role'] == 'assistant' else 'Q: ' }}{{ message['content'] }}"


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (f"{{% for message in messages %}}{OF_A_ROLE} <|im_end|>{{% endfor %}}", END),
        (f"{{% for message in messages %}}{OF_A_ROLE}\n{{% endfor %}}", None),
        (f"{{% for message in messages %}}{OF_A_ROLE} so <|im_end|>{{% endfor %}}", None),
        ("{{ raise_exception('no') }}", None),
        ("always the same", None),
        (None, None),
    ],
)
def test_the_end_of_a_turn_is_more_than_text_and_comes_at_once(
    template: str | None, end: int | None, tmp_path: Path
) -> None:
    tokenizer = loading.load_tokenizer(base_model(tmp_path / "policy"))
    tokenizer.chat_template = template
    assert turn_end(tokenizer) == end


def test_a_tokenizer_that_pads_with_its_end_ends_responses_all_the_same(tmp_path: Path) -> None:
    folder = with_ends(tmp_path / "policy", PAD, None)
    edit(folder / "tokenizer_config.json", pad_token=arithmetic.END)
    tokenizer = loading.load_tokenizer(folder)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == END
    assert end_tokens(loading.load_policy(folder)) == (END, PAD)


def test_every_process_knows_the_same_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that read no weights hear of generation_config.json too."""
    folder = with_ends(tmp_path / "policy", PAD, [TURN])
    monkeypatch.setattr(loading, "world", lambda: World(1, 2, torch.device("cpu")))
    policy = loading.load_policy(folder)
    assert policy.device.type == "meta"
    assert end_tokens(policy) == (END, PAD, TURN)


def test_a_tokenizer_without_an_end_or_with_one_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = with_ends(tmp_path / "none", PAD, PAD)
    edit(folder / "tokenizer_config.json", eos_token=None)
    for load in (loading.load_policy, loading.load_tokenizer):
        assert "its tokenizer has no eos_token, expected the token that ends a response" in message(load, folder)
    folder = with_ends(tmp_path / "beyond", PAD, PAD)
    edit(folder / "tokenizer_config.json", eos_token="<|new|>")
    assert "ends a response with token 328 (<|new|>), its policy knows 328 tokens" in message(
        loading.load_policy, folder
    )
