"""Local stand-ins for what a hub would give: sums with worked solutions in a file, and a tiny model with a tokenizer.

A sum of single digits is worked out line by line, some forty tokens with this tokenizer:

    What is 7 + 4 + 9 + 2?
    7 + 4 = 11
    11 + 9 = 20
    20 + 2 = 22
    The answer is \\boxed{22}.

A model of a million weights learns it from solutions in minutes on one core; of a smaller one it is fair to ask less.
"""

import functools
import json
import random
from pathlib import Path

import pandas as pd
import torch
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

BEGIN, TURN, END, PAD = "<|begin|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"
VOCABULARY = 384
# digits one by one, words with the space before them, runs of signs, line ends by themselves
PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CHAT = (
    "{%- for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)


def problem(numbers: list[int]) -> dict[str, str]:
    """The sum of two digits or more as columns `question`, `solution`, `answer`."""
    total, lines = numbers[0], []
    for number in numbers[1:]:
        lines.append(f"{total} + {number} = {total + number}")
        total += number
    return {
        "question": f"What is {' + '.join(map(str, numbers))}?",
        "solution": "\n".join([*lines, f"The answer is \\boxed{{{total}}}."]),
        "answer": str(total),
    }


def problems(count: int, seed: int = 0, terms: int = 4) -> list[dict[str, str]]:
    """`count` different sums of `terms` digits from 1 to 9, with their names in `id`; of other seeds other sums."""
    drawn = random.Random(seed).sample(range(9**terms), count)
    sums = [[number // 9**place % 9 + 1 for place in range(terms)] for number in drawn]
    return [{"id": f"sum-{'-'.join(map(str, numbers))}", **problem(numbers)} for numbers in sums]


def make_problems(path: Path, count: int, seed: int = 0, *, terms: int = 4) -> Path:
    """Write `problems` to a .jsonl, .csv or .parquet file."""
    rows = problems(count, seed, terms)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@functools.cache
def _trained(begin: bool) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence(
        [Split(Regex(PIECES), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    specials = [PAD, TURN, END, *([BEGIN] if begin else [])]
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(word, special=True) for word in specials],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    words = "Please reason step by step, and put your final answer within \\boxed{}. system user assistant"
    tokenizer.train_from_iterator(
        [words, *(f"{row['question']}\n{row['solution']}" for row in problems(200))], trainer=trainer
    )
    if begin:
        tokenizer.post_processor = TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
        )
    return tokenizer


def make_tokenizer(*, begin: bool = False, chat: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE over sums; `begin`: it puts a begin-of-text token first by itself, as Llama's does."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(begin).to_str()),
        pad_token=PAD,
        eos_token=END,
        bos_token=BEGIN if begin else None,
        additional_special_tokens=[TURN],
        chat_template=(("{{- bos_token }}" if begin else "") + CHAT) if chat else None,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )


def make_model_folder(
    path: Path,
    architecture: str = "qwen2",
    *,
    hidden_size: int = 64,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    tied: bool = False,
    chat: bool = True,
    seed: int = 0,
) -> Path:
    """A random model of a stock architecture (qwen2, qwen3, llama) with its tokenizer, as a hub would deliver it.

    With hidden_size=128 and layers=4 it has about a million weights.
    """
    tokenizer = make_tokenizer(begin=architecture == "llama", chat=chat)
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=hidden_size // heads,
        max_position_embeddings=2048,
        initializer_range=0.1 if hidden_size <= 64 else 0.05,
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
