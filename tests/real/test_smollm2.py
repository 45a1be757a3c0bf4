"""A real model, SmolLM2-135M-Instruct: its log-probabilities, its chat template and its ends; by `nox -s real`."""

import os
from pathlib import Path

import pytest
import torch
from torch_engines import assert_agrees
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from vcppo.engines.base import Sampling
from vcppo.engines.torch.engine import TorchEngine
from vcppo.models.loading import load_policy, load_tokenizer
from vcppo.models.sharding import prepare
from vcppo.rl.policy_update import read_logprobs
from vcppo.rl.sampler import Sampler, collate
from vcppo.settings.loading import override
from vcppo.settings.run import RunSettings
from vcppo.tasks import make_task
from vcppo.tasks.sums import SumsTask

FOLDER = os.environ.get("VCPPO_REAL_MODEL")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="VCPPO_REAL_MODEL names no folder; `nox -s real` makes one")
TASK = {"task.name": "vcppo.tasks.sums:SumsTask"}
LIMIT = 24


@pytest.fixture(scope="module")
def settings() -> RunSettings:
    return override(RunSettings(), {**TASK, "model.path": str(FOLDER), "micro_batch_tokens": 256})


@pytest.fixture(scope="module")
def policy(settings: RunSettings) -> PreTrainedModel:
    return prepare(load_policy(Path(str(FOLDER))), settings.compute, settings.lora, seed=0)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return load_tokenizer(Path(str(FOLDER)))


def test_prompts_are_those_of_transformers_chat_template(
    settings: RunSettings, tokenizer: PreTrainedTokenizerFast
) -> None:
    task, plain = make_task(settings.task), AutoTokenizer.from_pretrained(str(FOLDER))
    prompts = task.held_out_prompts()[:4]
    for prompt, ids in zip(prompts, task.encode(prompts, tokenizer), strict=True):
        conversation = [{"role": "system", "content": SumsTask.system}, {"role": "user", "content": prompt.text}]
        assert list(ids) == plain.apply_chat_template(conversation, add_generation_prompt=True, return_dict=False)


def test_sampled_and_read_logprobs_are_those_of_a_plain_forward_pass(
    settings: RunSettings, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    task = make_task(settings.task)
    sampler = Sampler(task, tokenizer, TorchEngine(policy), Sampling(1.0, 1.0, LIMIT))
    prompts = [list(ids) for ids in task.encode(task.held_out_prompts()[:4], tokenizer)]
    responses = sampler.engine.generate(prompts, sampler.sampling, seed=0)
    plain = AutoModelForCausalLM.from_pretrained(str(FOLDER), dtype=torch.float32).eval()
    assert_agrees(plain, prompts, responses, 1.0)
    rollouts = sampler.roll_out(task.held_out_prompts()[:4], seed=1)
    batch = collate(rollouts, torch.zeros(4))
    read = read_logprobs(policy, batch, temperature=1.0, max_tokens=settings.micro_batch_tokens)
    torch.testing.assert_close(read, batch.old_logprobs, rtol=1e-4, atol=1e-4)


def test_a_response_ends_with_the_end_of_its_turn(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Say yes."}], add_generation_prompt=True, return_dict=False
    )
    responses = TorchEngine(policy).generate([prompt] * 8, Sampling(0.5, 1.0, 64), seed=0)
    ended = [response for response in responses if len(response.tokens) < 64]
    assert ended
    assert all(response.tokens[-1] == end and end not in response.tokens[:-1] for response in ended)
