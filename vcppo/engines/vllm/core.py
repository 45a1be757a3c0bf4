"""One vLLM in this process: built for a model, its weights updated again and again, sampled from.

Both the colocated engine and the server are made of it. vLLM is imported only when a `Core` is made.

A response's log-probabilities are vLLM's "processed" ones: log-softmax of (logits / temperature) in float32, which is
what the torch engine returns. With top_p below 1 they are those of the nucleus, renormalised; the torch engine's are
of the whole distribution.
"""

import contextlib
import gc
import itertools
import json
import os
import random
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from vcppo.engines.vllm.wire import ModelSpec, Responses, Write, split
from vcppo.settings.fixed import VLLM_SHARE

CPU_SHARE = 0.25  # of the free memory that the cache may take on a CPU, unless the settings say
CPU_CACHE = 2**28  # bytes that it takes at least there
CPU_TOKENS = 4096  # read or written in a step there, or one whole prompt
CPU_BLOCK = 32  # tokens; vLLM's default of 128 would share no prefix shorter than that


class Core:
    """Samples from the weights of the last commit."""

    def __init__(self, spec: ModelSpec, folder: Path, *, colocated: bool, launched: bool = False) -> None:
        """Build the model with meaningless weights.

        Args:
            folder: config.json is put there.
            colocated: the trainer is in this process.
            launched: every rank of the torch process group makes a Core, and `tensor_parallel` neighbours share one
                model.
        """
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # pinned threads stand in other processes' way
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR" if colocated else "INFO")
        in_process = colocated or spec.tensor_parallel == 1
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if in_process else "1"
        from vllm import LLM  # takes seconds
        from vllm.platforms import current_platform

        from vcppo.engines.vllm.worker import EXTENSION

        self.spec = spec
        self.on_cpu: bool = current_platform.is_cpu()
        self.weights = ""  # name of the complete weights in the model, empty while they are not complete
        self._numbers = itertools.count()
        self._jobs: dict[str, _Job] = {}
        (folder / "config.json").write_text(spec.config, encoding="utf-8")
        share = VLLM_SHARE["colocated" if colocated else "server"]
        memory: dict[str, Any] = {"gpu_memory_utilization": spec.memory_share or share}
        if self.on_cpu:
            memory = {"kv_cache_memory_bytes": _cpu_cache(spec), "block_size": CPU_BLOCK}
            # a prompt read in two steps draws a token in the first that is thrown away, and vLLM then winds the
            # response's generator back, which a CPU's cannot: read every prompt whole
            memory |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(spec.max_length, CPU_TOKENS)}
        llm = LLM(
            str(folder),
            skip_tokenizer_init=True,
            load_format="dummy",
            generation_config="vllm",
            logprobs_mode="processed_logprobs",
            dtype=spec.dtype,
            max_model_len=spec.max_length,
            max_num_seqs=spec.max_sequences,
            tensor_parallel_size=spec.tensor_parallel,
            distributed_executor_backend="external_launcher" if launched else None,
            enforce_eager=self.on_cpu if spec.enforce_eager is None else spec.enforce_eager,
            enable_prefix_caching=spec.prefix_caching,
            enable_sleep_mode=spec.sleep and not self.on_cpu,
            worker_extension_cls=EXTENSION,
            **memory,
        )
        self._engine = llm.llm_engine

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copy weights into the model of this process. Until `commit` there are none to sample from."""
        self.weights = ""
        self._engine.collective_rpc("vcppo_load", args=(weights,))

    def load_file(self, path: Path) -> None:
        """The same from a safetensors file, in every process of the model."""
        self.weights = ""
        self._engine.collective_rpc("vcppo_load_file", args=(str(path),))

    def commit(self, weights: str) -> None:
        """Name the weights, all of which are loaded. What was cached under others is dropped.

        Raises:
            ValueError: some parameters of the model were not given.
        """
        missing = sorted({name for names in self._engine.collective_rpc("vcppo_commit") for name in names})
        if missing:
            raise ValueError(f"the weights lack {len(missing)} of the model's parameters, among them {missing[0]}")
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("the prefix cache could not be emptied")
        self.weights = weights

    def begin(self, request: Write) -> str:
        """Take a request, for `step` to generate; return the name of the job.

        Raises:
            ValueError: a response would not fit the model, or the weights are not those of the request.
        """
        if not self.weights or request.weights != self.weights:
            raise ValueError("the weights asked for are not in the model: somebody else has given it others")
        stems = split(request.stems, request.stem_lengths)
        requested = list(zip(request.owners, request.lengths, request.limits, request.seeds, strict=True))
        name = str(next(self._numbers))
        self._jobs[name] = _Job(len(requested), sum(request.lengths))
        by_prefix = sorted(
            range(len(requested)), key=lambda i: requested[i][:2]
        )  # those that share a beginning, together
        try:
            for i in by_prefix:
                owner, length, limit, seed = requested[i]
                prompt = {"prompt_token_ids": stems[owner][:length]}
                self._engine.add_request(f"{name}/{i}", prompt, _sampling(request, limit, seed))
        except ValueError:
            self.drop(name)
            raise
        return name

    def step(self) -> list[tuple[str, Responses]]:
        """Generate one more token of every response; return the jobs that this finishes."""
        outputs = self._engine.step() if self._engine.has_unfinished_requests() else []
        for output in outputs:
            name, _, i = output.request_id.partition("/")
            if output.finished and name in self._jobs:
                self._jobs[name].take(int(i), output)
        done = [name for name, job in self._jobs.items() if job.finished == len(job.responses)]
        return [(name, self._jobs.pop(name).collected()) for name in done]

    def drop(self, name: str) -> None:
        """Stop generating a job's responses."""
        job = self._jobs.pop(name)
        self._engine.abort_request([f"{name}/{i}" for i, response in enumerate(job.responses) if response is None])

    def sleep(self) -> None:
        """Free the GPU's memory, and with it the weights."""
        self.weights = ""
        self._engine.sleep(level=2)

    def close(self) -> None:
        """Free the model."""
        self._engine.engine_core.shutdown()
        del self._engine
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def wake(self, what: str) -> None:
        """Take memory for the "weights" or the "kv_cache" again."""
        self._engine.wake_up([what])


class _Job:
    """Responses to one request as they are finished."""

    def __init__(self, count: int, prompt_tokens: int) -> None:
        self.responses: list[tuple[list[int], list[float], bool] | None] = [None] * count
        self.finished = 0
        self.prompt_tokens, self.cached_tokens = prompt_tokens, 0

    def take(self, i: int, output: Any) -> None:
        """Store one response, as vLLM returns it."""
        made = output.outputs[0]
        tokens, logprobs = list(made.token_ids), list(made.logprobs.logprobs)
        if made.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"a response ended for the reason {made.finish_reason!r}, expected stop or length")
        if list(made.logprobs.token_ids) != tokens:
            raise RuntimeError("vLLM's log-probabilities are of other tokens than its response's")
        self.responses[i] = tokens, logprobs, made.finish_reason == "stop"
        self.finished += 1
        self.cached_tokens += output.num_cached_tokens or 0

    def collected(self) -> Responses:
        """Collect all of them, in order."""
        responses = [response for response in self.responses if response is not None]
        return Responses(
            tokens=array("q", itertools.chain.from_iterable(tokens for tokens, _, _ in responses)),
            logprobs=array("f", itertools.chain.from_iterable(logprobs for _, logprobs, _ in responses)),
            lengths=array("q", [len(tokens) for tokens, _, _ in responses]),
            stopped=array("B", [stopped for _, _, stopped in responses]),
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
        )


def _sampling(request: Write, limit: int, seed: int) -> Any:
    """vLLM's SamplingParams of one response."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=request.temperature,
        top_p=request.top_p,
        max_tokens=limit,
        seed=seed,
        stop_token_ids=request.stop,
        ignore_eos=True,  # the line above alone decides what ends a response
        logprobs=0,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


@contextlib.contextmanager
def untouched_randomness() -> Iterator[None]:
    """Restore global random states afterwards: vLLM seeds them all when it starts, and draws from them."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _cpu_cache(spec: ModelSpec) -> int:
    """Bytes of keys and values: enough for all sequences at full length, if a share of the memory holds that."""
    memory = psutil.virtual_memory()
    if spec.memory_share is not None:
        return int(spec.memory_share * memory.total)
    config = json.loads(spec.config)
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    token = 2 * config["num_hidden_layers"] * heads * width * torch.finfo(getattr(torch, spec.dtype)).bits // 8
    wanted: int = (spec.max_length + CPU_BLOCK) * spec.max_sequences * token
    at_most = int(CPU_SHARE * memory.available)
    return max(min(wanted, at_most), CPU_CACHE)
