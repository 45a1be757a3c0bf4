"""Every setting and its default, once. How text becomes settings is in vcppo/settings/loading.py."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal, Self, assert_never

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from vcppo.settings.fixed import VLLM_SHARE
from vcppo.settings.rules import TORCH_COLDEST, meaningless

Aggregation = Literal["token-mean", "sequence-mean", "fixed-length"]
Schedule = Literal["constant", "linear", "cosine"]
Estimator = Literal["gae", "td", "q", "released-dvpo", "vine", "return", "grpo", "rloo", "none"]
PolicyLossKind = Literal["clip", "unclipped", "reinforce", "apa", "awr", "gspo", "cispo", "dpo"]
Every = Literal["never"]
Problems = Literal["report", "search"]
WITH_CRITIC = ("gae", "td", "q", "released-dvpo")

# How each task is evaluated unless something else is said; maths as VAPO evaluates AIME (arXiv:2504.05118).
EVALUATION_OF_TASK: Mapping[str, Mapping[str, Any]] = {
    "digits": {"samples": 8, "temperature": 1.0, "top_p": 1.0},
    "maths": {"samples": 32, "temperature": 1.0, "top_p": 0.7},
}
# How a model that is given (model.path) is trained unless something else is said: the defaults below are those of a
# fresh network of a tenth of a million weights, and destroy one that knows something. See docs/processes.md.
OF_A_GIVEN_MODEL: Mapping[str, Any] = {
    "cold_start.learning_rate": 1e-5,
    "cold_start.warmup_steps": 10,
    "cold_start.steps": 100,
    "cold_start.batch_tokens": 16384,
    "reward_model.learning_rate": 1e-5,
    "reward_model.warmup_steps": 10,
    "pretrain.learning_rate": 1e-5,
    "pretrain.warmup_steps": 10,
    "policy.learning_rate": 1e-6,
    "policy.warmup_steps": 10,
    "critic.learning_rate": 1e-5,
    "critic.warmup_steps": 10,
}
OF_ADAPTERS: Mapping[str, Any] = {  # lora.rank > 0: low-rank adapters want ten times the rate of whole weights
    "cold_start.learning_rate": 1e-4,
    "reward_model.learning_rate": 1e-4,
    "pretrain.learning_rate": 1e-4,
    "policy.learning_rate": 1e-5,
    "critic.learning_rate": 1e-4,
}
UNFINISHED = "unfinished"  # in the context of a validation: settings that others will be added to need not fit yet


WARM_UP = "steps over which the rate rises linearly from 0; with model.path unless set 10"


class Settings(BaseModel):
    """Frozen and closed: an unknown name is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _positive(interval: int | str) -> int | str:
    if isinstance(interval, int) and interval < 1:
        raise PydanticCustomError("interval", "expected 1 or more, or `never`")
    return interval


def _not_too_cold(temperature: float) -> float:
    """0 is judged by whoever asks."""
    if 0 < temperature < TORCH_COLDEST:
        raise PydanticCustomError(
            "temperature",
            "expected {least} or more: logits divided by so little overflow",
            {"least": f"{TORCH_COLDEST:g}"},
        )
    return temperature


class MathsSettings(Settings):
    """Mathematical problems from the dataset hub or a file; see docs/maths.md."""

    train: str = Field(
        "dapo-math-17k", min_length=1, description="problems to learn from: a known set, a hub name, or a file"
    )
    evaluate: str = Field("aime24", min_length=1, description="problems to measure on, in the same forms")
    train_split: str | None = Field(None, description="split of a set on the hub; by default a known set's own, train")
    evaluate_split: str | None = Field(None, description="the same for evaluation; by default a known set's own, test")
    evaluate_limit: int | None = Field(None, ge=1, description="only so many problems of evaluation, evenly spaced")
    question_column: str | None = Field(None, description="by default the first of the usual names; `a.b` reaches in")
    answer_column: str | None = Field(None, description="reference answers, or texts that end in one")
    solution_column: str | None = Field(None, description="worked solutions, what the cold start imitates")
    name_column: str | None = Field(None, description="what problems are called in tables; by default their number")
    answers: Literal["math-verify", "integer"] = Field(
        "math-verify",
        description="how they are compared: as mathematics, or as AIME's integers, nothing else being readable",
    )
    form: Literal["by-set", "number", "closed-form", "expression"] = Field(
        "by-set", description="what may be left to work out in an answer; by-set: as answers of the known sets are"
    )
    boxed_only: bool = Field(
        True, description="an answer stands in \\boxed{}; false: without a box the last plain number is one"
    )
    template: Literal["chat", "plain"] = Field("chat", description="the tokenizer's own chat template, or bare text")
    instruction: str = Field(
        "Please reason step by step, and put your final answer within \\boxed{}.",
        description="said after the question; may be empty",
    )
    system: str | None = Field(None, description="the system's message before the question")
    think: bool = Field(False, description="the prompt opens a thought, and only what follows its end is judged")
    think_open: str = Field("<think>", min_length=1, description="what opens a thought")
    think_close: str = Field("</think>", min_length=1, description="what ends a thought")
    max_tokens: int = Field(
        8192,
        ge=1,
        description="an answer's length limit unless rollout.max_tokens gives one; less where the model has no room",
    )
    time_limit_s: float = Field(2.0, gt=0, description="after which an answer that is still being compared is given up")
    memory_limit_mb: int = Field(1024, ge=64, description="that comparing one answer may take")
    workers: int | None = Field(None, ge=1, description="processes that compare; by default half the cores, 8 at most")


class TaskSettings(Settings):
    """What is asked, and how hard it is."""

    name: Literal["digits", "maths"] = Field(
        "digits", description="the embedded task (vcppo/tasks/digits.py), or problems from a hub or a file"
    )
    chain_length: int = Field(30, ge=2, le=2000, description="lines of thought that a right answer needs")
    spread: int = Field(0, ge=0, description="target lines vary from chain_length - spread to chain_length")
    digits: int = Field(3, ge=2, le=6, description="digits of the state, hence of the answer")
    stop_hazard: float = Field(0.09, ge=0, lt=1, description="chance a demonstration stops early, at each line")
    held_out: int = Field(200, ge=1, description="problems kept for evaluation, never trained on")
    held_out_for_search: int = Field(
        0, ge=0, description="further problems, never trained on, that evaluation.problems = search asks in their stead"
    )
    maths: MathsSettings = MathsSettings()


class ModelSettings(Settings):
    """The network that policy and critic share the shape of; a fresh one, or a checkpoint to start from."""

    path: str | None = Field(None, description="folder or hub name of a policy to start from instead of a fresh one")
    architecture: Literal["llama", "qwen2", "qwen3"] = Field("llama", description="stock transformers configuration")
    hidden_size: int = Field(64, ge=8, description="width")
    intermediate_size: int = Field(128, ge=8, description="width of the gated feed-forward layer")
    layers: int = Field(2, ge=1, description="decoder layers")
    heads: int = Field(4, ge=1, description="attention heads")
    kv_heads: int = Field(4, ge=1, description="key/value heads, a divisor of heads")
    initializer_range: float = Field(
        0.1, gt=0, description="standard deviation of fresh weights; 0.02 starts slowly here"
    )
    tied: bool = Field(False, description="a fresh policy's output head is its embedding")
    trust_remote_code: bool = Field(False, description="run Python code that comes with `path`; only if you wrote it")

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.hidden_size % self.heads or self.heads % self.kv_heads or (self.hidden_size // self.heads) % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size}, heads {self.heads}, kv_heads {self.kv_heads}: expected hidden_size "
                "an even multiple of heads, and heads a multiple of kv_heads"
            )
        return self


class LoraSettings(Settings):
    """Low-rank adapters (arXiv:2106.09685) in place of whole weights, in every stage that trains; saved merged."""

    rank: int = Field(0, ge=0, description="of the adapters; 0 trains all weights")
    alpha: int = Field(32, gt=0, description="adapters are scaled by alpha / rank")
    targets: str = Field("all-linear", description="layers with an adapter: names with commas between, or `all-linear`")


class ComputeSettings(Settings):
    """How passes are computed: speed and memory, and of the numbers no more than their last digits."""

    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of passes; weights, optimiser, values and losses stay float32"
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field("sdpa", description="as transformers calls it")
    packing: bool = Field(False, description="answers stand in one line, without padding; for flash_attention_2")
    gradient_checkpointing: bool = Field(False, description="recompute each layer in the backward pass")
    logit_cells: int = Field(2**26, ge=1, description="float32 logits alive at once; 2**26 are 256 MiB")
    offload: bool = Field(False, description="weights, gradients and optimiser wait in main memory (FSDP2)")
    replicas: int = Field(1, ge=1, description="groups of processes that each hold all shards (hybrid sharding)")


class OptimiserSettings(Settings):
    """AdamW and its learning-rate schedule; OF_A_GIVEN_MODEL has other rates and warm-ups where a model is given."""

    learning_rate: float = Field(1e-3, gt=0, description="peak")
    schedule: Schedule = Field("constant", description="after the warm-up")
    warmup_steps: int = Field(0, ge=0, description="steps over which the rate rises linearly from 0")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="decay of AdamW's mean of gradients")
    adam_beta2: float = Field(0.95, ge=0, lt=1, description="decay of AdamW's mean of squared gradients")
    adam_epsilon: float = Field(1e-8, gt=0, description="added to AdamW's denominator")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")


class ColdStartSettings(OptimiserSettings):
    """Supervised fine-tuning on demonstrations that mostly stop thinking too early."""

    learning_rate: float = Field(1e-2, gt=0, description="peak; with model.path unless set 1e-5, adapters 1e-4")
    schedule: Schedule = Field("cosine", description="after the warm-up")
    warmup_steps: int = Field(30, ge=0, description=WARM_UP)
    steps: int = Field(
        800, ge=0, description="updates; 0 takes the model of model.path as it is; with model.path unless set 100"
    )
    batch_tokens: int = Field(
        3000,
        ge=1,
        description="tokens of demonstrations an update, in whole demonstrations; with model.path unless set 16384",
    )


class RewardModelSettings(OptimiserSettings):
    """Bradley-Terry on (correct, incorrect) answers, scored at the last token only."""

    learning_rate: float = Field(1e-3, gt=0, description="peak; with model.path unless set 1e-5, adapters 1e-4")
    warmup_steps: int = Field(0, ge=0, description=WARM_UP)
    steps: int = Field(200, ge=1, description="updates")
    centering: float = Field(0.1, ge=0, description="weight of the squared sum of a pair's scores; 0 leaves it free")
    pairs: int = Field(16, ge=1, description="(correct, incorrect) pairs an update")
    answers: int = Field(4096, ge=2, description="answers sampled from the cold-start policy to make pairs of")
    answers_per_prompt: int = Field(16, ge=2, description="of them to each problem; a pair shares its problem")


class EngineSettings(Settings):
    """Who generates answers; docs/vllm.md says how to choose."""

    kind: Literal["torch", "vllm"] = Field("torch", description="torch: in this process, with nothing but torch")
    mode: Literal["colocated", "server"] = Field(
        "colocated", description="vLLM in this process, or in one of its own, maybe with its own Python environment"
    )
    python: str | None = Field(
        None, description="Python of the environment that the server is started in; none: this one"
    )
    url: str | None = Field(None, description="host:port of a server that runs already; none: one is started")
    devices: str | None = Field(
        None, description="GPUs of the server that is started, as CUDA_VISIBLE_DEVICES names them; none: all of ours"
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share one copy of the model")
    memory_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description=f"of each GPU's memory, weights included; none: {VLLM_SHARE['colocated']} colocated, "
        f"{VLLM_SHARE['server']} for a server; on a CPU it is "
        "of the memory and for the cache alone, none: what max_sequences need",
    )
    max_sequences: int = Field(256, ge=1, description="answers written together")
    max_length: int | None = Field(
        None, ge=2, description="tokens of a prompt with its answer; none: as many as the policy has positions"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="auto: the policy's own")
    enforce_eager: bool | None = Field(None, description="no CUDA graphs or compilation; none: so on a CPU alone")
    prefix_caching: bool = Field(True, description="what prompts begin with in common is read once")
    sleep: bool = Field(True, description="between calls the GPU's memory is given back to the trainer")
    start_timeout_s: float = Field(600.0, gt=0, description="a server that takes longer to start ends the run")
    request_timeout_s: float = Field(600.0, gt=0, description="a server that is silent for longer ends the run")

    @field_validator("url")
    @classmethod
    def _host_and_port(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"[^/\s]+:\d{1,5}", url):
            raise PydanticCustomError("url", "expected host:port, for example node3:7100")
        return url


class RolloutSettings(Settings):
    """What one iteration samples."""

    prompts: int = Field(96, ge=1, description="problems an iteration")
    samples_per_prompt: int = Field(1, ge=1, description="answers a problem; GRPO needs more than one")
    temperature: float = Field(
        1.0, ge=0, description="of sampling, above 0; log-probabilities are taken at it too, in training as well"
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="nucleus; old_logprobs are of the whole distribution, vLLM's of it",
    )
    max_tokens: int | None = Field(None, ge=1, description="an answer is cut here; by default the task says")
    refresh_every: int | Every = Field(
        1, description="iterations between refreshes of the policy that samples; `never`: the cold-start policy does"
    )

    _interval = field_validator("refresh_every")(_positive)
    _cold = field_validator("temperature")(_not_too_cold)

    @field_validator("temperature")
    @classmethod
    def _not_greedy(cls, temperature: float) -> float:
        if temperature == 0:
            raise PydanticCustomError(
                "greedy",
                "expected more than 0: what is trained on is sampled, for log-probabilities at temperature 0 (greedy "
                "decoding) are 0 or minus infinity and have no gradient; only evaluation.temperature may be 0",
            )
        return temperature

    @property
    def sampling(self) -> dict[str, Any]:
        """How a response is drawn, whoever asks for it; the rest says how many are."""
        return self.model_dump(mode="json", include={"temperature", "top_p", "max_tokens"})


class RewardSettings(Settings):
    """What the verifier's three verdicts are worth, and how the worth of an answer is shaped."""

    correct: float = Field(1.0, description="reward of a right answer")
    wrong: float = Field(-1.0, description="reward of a wrong answer")
    unreadable: float = Field(-1.0, description="reward of an answer with no readable result")
    truncated: float | None = Field(None, description="reward of an answer cut at the limit; none: as it was verified")
    overlong_share: float | None = Field(
        None, gt=0, le=1, description="last share of the length limit in which an answer is punished; DAPO uses 0.2"
    )
    overlong_penalty: float = Field(1.0, gt=0, description="punishment at the limit, growing linearly to it")
    normalise: Literal["none", "scale", "standardise"] = Field(
        "none", description="by running moments: divide by the deviation, or subtract the mean too"
    )
    clip: float | None = Field(None, gt=0, description="rewards are kept within +-clip, after normalisation")


class TokenRewardSettings(Settings):
    """A reward for every token from a policy trained by DPO (RTO, arXiv:2404.18922)."""

    kind: Literal["none", "rto", "semi-rto", "ddpo", "rs-ppo"] = Field(
        "none",
        description="on each token; at the end of each step; at the end; on each token and taken back at the end",
    )
    weight: float = Field(0.05, ge=0, description="of log(pi_dpo / pi_ref)")
    clip: float | None = Field(None, gt=0, description="a token's reward is kept within +-clip")
    dpo_steps: int = Field(25, ge=1, description="iterations of DPO that train pi_dpo, as `method=dpo` trains it")


class SelectSettings(Settings):
    """Which answers are trained on."""

    prune_rate: float = Field(0.0, ge=0, lt=1, description="share of answers dropped before any forward pass (CPPO)")
    scope: Literal["question", "batch"] = Field("question", description="answers are ranked within it")
    keep: Literal["largest", "smallest", "signed", "random"] = Field(
        "largest", description="answers with the largest or smallest |advantage|, the largest advantage, or any"
    )
    refill: bool = Field(False, description="ask 1 / (1 - prune_rate) times as many questions (dynamic allocation)")
    dynamic_sampling: bool = Field(False, description="groups all right or all wrong are replaced by new ones (DAPO)")
    max_rounds: int = Field(
        10, ge=1, description="rounds of sampling before a smaller batch has to do; if nothing is mixed, the last"
    )
    drop_truncated: bool = Field(False, description="answers cut at the limit are not trained on (DAPO's filter)")


class VineSettings(Settings):
    """Values by Monte Carlo: continuations sampled from the ends of an answer's steps (VinePPO, arXiv:2410.01679)."""

    samples: int = Field(9, ge=1, description="continuations of each state")
    max_steps: int | None = Field(8, ge=1, description="steps of an answer that get a value of their own; none: all")
    cap: Literal["merge", "first"] = Field(
        "merge", description="beyond max_steps: join neighbouring steps, or give the rest the realised return"
    )


class PretrainSettings(OptimiserSettings):
    """Value pretraining: the critic learns Monte-Carlo returns of the fixed cold-start policy (section 4.1)."""

    learning_rate: float = Field(1e-3, gt=0, description="peak; with model.path unless set 1e-5, adapters 1e-4")
    warmup_steps: int = Field(0, ge=0, description=WARM_UP)
    steps: int | Literal["converge"] = Field(
        "converge", description="updates; 0 for none; `converge`: until held-out loss and explained variance settle"
    )
    max_steps: int = Field(300, ge=1, description="`converge` gives up here, and a falling schedule ends here")
    batch: int = Field(96, ge=1, description="answers an update")
    pool: int = Field(2304, ge=1, description="answers of the fixed policy, generated once and shared by every critic")
    held_out: int = Field(384, ge=2, description="further answers that only measure loss and explained variance")
    fresh_rollouts: bool = Field(False, description="sample new answers for every update instead, as the paper does")
    evaluate_every: int = Field(10, ge=1, description="updates between measurements on the held-out answers")
    patience: int = Field(2, ge=1, description="measurements in a row without improvement that end `converge`")
    tolerance: float = Field(0.01, ge=0, description="a change smaller than this is no improvement")

    @field_validator("steps")
    @classmethod
    def _not_negative(cls, steps: int | str) -> int | str:
        if isinstance(steps, int) and steps < 0:
            raise PydanticCustomError("steps", "expected 0 or more, or `converge`")
        return steps


class GaeSettings(Settings):
    """Generalized advantage estimation, with a lambda for each of its two uses."""

    gamma: float = Field(1.0, gt=0, le=1, description="discount")
    lambda_actor: float = Field(0.95, ge=0, le=1, description="bias-variance of the policy's advantages")
    lambda_critic: float = Field(1.0, ge=0, le=1, description="1.0: value targets are Monte-Carlo returns")
    length_adaptive_alpha: float | None = Field(
        None, gt=0, description="lambda_actor = 1 - 1/(alpha * length) instead of a number; VAPO uses 0.05"
    )
    bootstrap_truncated: bool = Field(
        False, description="an answer cut at the limit is worth V there, in place of its score"
    )


class AdvantageSettings(Settings):
    """How good a token was."""

    estimator: Estimator = Field("gae", description="gae, td, q and released-dvpo read a critic; see docs/methods.md")
    whiten: Literal["none", "batch", "minibatch"] = Field("none", description="scope of normalisation to mean 0, std 1")
    clip: float | None = Field(None, gt=0, description="advantages are kept within +-clip, after whitening")
    group_scale: bool = Field(True, description="GRPO divides by the group's standard deviation")


class KlSettings(Settings):
    """Staying near the cold-start policy."""

    placement: Literal["none", "reward", "loss"] = Field("none", description="where the penalty enters")
    coefficient: float = Field(0.01, ge=0, description="its weight")
    estimator: Literal["k1", "k2", "k3"] = Field("k3", description="see vcppo/maths/losses.py")


class ReferenceSettings(Settings):
    """The policy that KL penalties, APA, DPO and RTO compare with: the cold-start policy, unless it moves."""

    ema: float = Field(0.0, ge=0, le=1, description="share of the policy mixed into it after every iteration")
    refresh_every: int | Every = Field("never", description="iterations after which it is replaced by the policy")

    _interval = field_validator("refresh_every")(_positive)


class PolicySettings(OptimiserSettings):
    """The actor's update."""

    learning_rate: float = Field(3e-4, gt=0, description="peak; with model.path unless set 1e-6, adapters 1e-5")
    schedule: Schedule = Field("linear", description="after the warm-up")
    warmup_steps: int = Field(0, ge=0, description=WARM_UP)
    epochs: int = Field(1, ge=1, description="passes over an iteration's answers")
    minibatches: int = Field(4, ge=1, description="updates a pass")
    loss: PolicyLossKind = Field("clip", description="see vcppo/maths/losses.py")
    clip_low: float = Field(0.2, gt=0, le=1, description="ratio is clipped at 1 - clip_low; 1 leaves it open")
    clip_high: float = Field(0.2, gt=0, description="ratio is clipped at 1 + clip_high")
    dual_clip: float | None = Field(
        None, gt=1, description="bound on the loss of bad tokens, off by default; policy/dual_clip_fraction counts them"
    )
    aggregation: Aggregation = Field("token-mean", description="how token losses become one number")
    entropy_coefficient: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    advantage_temperature: float = Field(
        0.1, gt=0, description="APA's target is advantage / temperature, AWR's weight exp(advantage / temperature)"
    )
    dpo_beta: float = Field(0.1, gt=0, description="of DPO's implicit reward")
    positive_nll: float = Field(0.0, ge=0, description="weight of the likelihood of right answers (VAPO: 0.1)")
    demonstration_nll: float = Field(0.0, ge=0, description="weight of the likelihood of demonstrations (PPO-max)")


class EarlyStopSettings(Settings):
    """ESPO (arXiv:2202.00079): instead of clipping ratios, end an iteration's policy updates when they drift."""

    deviation: Literal["none", "tokens", "sequences", "high-entropy-tokens"] = Field(
        "none", description="what |ratio - 1| is averaged over"
    )
    threshold: float = Field(0.25, ge=0, description="updates end after the first that saw more than this")
    entropy_share: float = Field(0.2, gt=0, le=1, description="share of tokens that counts as of high entropy")


class CriticSettings(OptimiserSettings):
    """The critic's start and its update during RL."""

    init: Literal["reward-model", "policy", "saved"] = Field(
        "reward-model", description="where value pretraining starts from"
    )
    path: str | None = Field(None, description="folder or hub name of the critic that `init = saved` starts from")
    initial_value: float | Literal["mean-score"] = Field(
        0.0,
        description="first values of a fresh head; `mean-score`: of the answers it will be pretrained on, or, with "
        "pretrain.steps = 0, of pretrain.held_out answers of the fixed policy",
    )
    bounded: bool = Field(False, description="values cannot leave the range of rewards, by a sigmoid")
    learning_rate: float = Field(
        6e-4,
        gt=0,
        description="peak; papers keep it at twice the actor's; with model.path unless set 1e-5, adapters 1e-4",
    )
    schedule: Schedule = Field("linear", description="after the warm-up")
    warmup_steps: int = Field(0, ge=0, description=WARM_UP)
    updates_per_policy_update: int = Field(1, ge=1, description="critic updates for each policy update")
    policy_starts_after: int = Field(0, ge=0, description="iterations, exactly so many, that train the critic only")
    value_loss: Literal["mse", "clipped"] = Field(
        "mse", description="plain squared error, or clipped around old values"
    )
    value_clip_range: float = Field(0.5, gt=0, description="range of the clipped value loss")
    aggregation: Aggregation = Field("token-mean", description="the critic's own, whatever the actor's is")
    update_every: int | Every = Field(1, description="iterations between those that train it; `never`: frozen (DVPO)")
    normalise_returns: bool = Field(False, description="it learns returns divided by their running deviation")

    _interval = field_validator("update_every")(_positive)


class MismatchSettings(Settings):
    """What the generator says of its tokens' probabilities beside what the trainer says of them."""

    check: Literal["auto", "always", "never"] = Field(
        "auto", description="read log-probabilities again before training; auto: if generator or passes differ"
    )
    cap: float | None = Field(
        2.0, gt=0, description="truncated importance weight of a token, trainer over generator; none: no correction"
    )
    alarm: float = Field(0.05, gt=0, description="mean |difference| (nats) above which an iteration warns")


class GuardSettings(Settings):
    """When training is stopped because it has left the realm of sense, and when it warns that it is about to."""

    max_ratio: float = Field(1e4, gt=1, description="a probability ratio above this ends the run")
    kl_alarm: float = Field(
        0.05, gt=0, description="approx_kl (nats a token) between an iteration's updates above which it warns"
    )


class EvaluationSettings(Settings):
    """Held-out problems, fixed for a task, answered several times each; EVALUATION_OF_TASK has each task's defaults."""

    samples: int = Field(
        8,
        ge=1,
        description="answers a problem in the final evaluation; unless set, the task says: digits 8, maths 32, and 1 "
        "at temperature 0",
    )
    problems: Problems = Field(
        "report", description="the held-out problems that are reported, or those kept for choosing settings by"
    )
    every: int = Field(10, ge=0, description="iterations between evaluations during training; 0 for none")
    samples_during: int = Field(1, ge=1, description="answers a problem in those")
    temperature: float = Field(
        1.0, ge=0, description="of sampling, 0 for greedy decoding; unless set, the task says: 1 for both"
    )
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus; unless set, the task says: digits 1, maths 0.7")
    seed: int = Field(0, ge=0, description="of the sampling; the same for every run")
    answers_at_once: int = Field(
        256, ge=1, description="answers written together, whole problems; more are faster, fewer lose less when killed"
    )

    _cold = field_validator("temperature")(_not_too_cold)


class RecordSettings(Settings):
    """What a run writes down, and how often."""

    checkpoint_every: int = Field(10, ge=1, description="iterations between checkpoints to resume from")
    positions_every: int = Field(5, ge=1, description="iterations between tables of the critic by token position")
    samples_every: int = Field(10, ge=1, description="iterations between tables of sampled answers")
    samples: int = Field(4, ge=1, description="answers in such a table")
    truth_every: int = Field(0, ge=0, description="iterations between measurements of the true values; 0 for none")
    truth_answers: int = Field(8, ge=1, description="answers whose states are measured")
    truth_samples: int = Field(256, ge=2, description="continuations of each state")


class RunSettings(Settings):
    """One run, whole. Defaults are VC-PPO's; `method` puts another set of them beneath what is given explicitly."""

    method: str = Field("vcppo", description="a named set of settings; `vcppo methods` lists them")
    arm: str = Field("vcppo", min_length=1, description="name of the run in tables and figures; changes nothing else")
    seed: int = Field(0, ge=0, description="of value pretraining and RL: problems drawn, tokens sampled, shuffles")
    base_seed: int = Field(0, ge=0, description="of cold start and reward model, shared by the seeds of a study")
    steps: int = Field(50, ge=1, description="RL iterations")
    micro_batch_tokens: int = Field(
        2048, ge=1, description="cells of a forward pass, padding included; fewer pad less, more keep a GPU busy"
    )
    task: TaskSettings = TaskSettings()
    model: ModelSettings = ModelSettings()
    lora: LoraSettings = LoraSettings()
    compute: ComputeSettings = ComputeSettings()
    cold_start: ColdStartSettings = ColdStartSettings()
    reward_model: RewardModelSettings = RewardModelSettings()
    engine: EngineSettings = EngineSettings()
    rollout: RolloutSettings = RolloutSettings()
    reward: RewardSettings = RewardSettings()
    token_reward: TokenRewardSettings = TokenRewardSettings()
    select: SelectSettings = SelectSettings()
    vine: VineSettings = VineSettings()
    pretrain: PretrainSettings = PretrainSettings()
    gae: GaeSettings = GaeSettings()
    advantage: AdvantageSettings = AdvantageSettings()
    kl: KlSettings = KlSettings()
    reference: ReferenceSettings = ReferenceSettings()
    policy: PolicySettings = PolicySettings()
    early_stop: EarlyStopSettings = EarlyStopSettings()
    critic: CriticSettings = CriticSettings()
    mismatch: MismatchSettings = MismatchSettings()
    guard: GuardSettings = GuardSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    record: RecordSettings = RecordSettings()

    @model_validator(mode="before")
    @classmethod
    def _with_defaults_beside(cls, given: Any) -> Any:
        """What is left unsaid and depends on other settings is written out, so that settings as recorded say it all."""
        if not isinstance(given, Mapping):
            return given
        tree = dict(given)
        for name, value in defaults_beside(given).items():
            section, leaf = name.split(".")
            said = _as_said(tree.get(section, {}))
            if isinstance(said, Mapping):  # else a mistake that validation will tell
                tree[section] = {leaf: value, **said}
        return tree

    @model_validator(mode="after")
    def _parts_fit(self, info: ValidationInfo) -> Self:
        if info.context == UNFINISHED:
            return self
        if self.task.spread >= self.task.chain_length:
            raise ValueError(
                f"task.spread = {self.task.spread}: expected less than task.chain_length = {self.task.chain_length}"
            )
        for reason in meaningless(self):
            raise ValueError(reason)
        return self

    @property
    def has_critic(self) -> bool:
        """Whether advantages read a value model."""
        return self.advantage.estimator in WITH_CRITIC

    @property
    def starts_at_mean_score(self) -> bool:
        """Whether the critic's first values are the mean score of the fixed policy's answers."""
        fresh_head = self.has_critic and self.critic.init == "policy"
        return fresh_head and self.critic.initial_value == "mean-score"

    @property
    def fixed_answers(self) -> tuple[int, int]:
        """Answers of the fixed policy that a run needs: (to pretrain on, further ones); no further ones, no answers.

        Without pretraining their mean alone may be asked for, which the further ones tell well enough: of scores -1
        and 1 to 0.05, the standard error of 384.
        """
        chosen = self.pretrain
        if self.has_critic and chosen.steps != 0:
            return 0 if chosen.fresh_rollouts else chosen.pool, chosen.held_out
        return 0, chosen.held_out if self.starts_at_mean_score else 0

    @property
    def needs_reference(self) -> bool:
        """Whether anything compares the policy with a reference."""
        compares = self.kl.placement != "none" or self.token_reward.kind != "none"
        return compares or self.policy.loss in ("apa", "dpo")

    @property
    def checks_mismatch(self) -> bool:
        """Whether the trainer reads the log-probabilities of sampled tokens itself."""
        match self.mismatch.check:
            case "always":
                return True
            case "never":
                return False
            case "auto":
                return self.engine.kind != "torch" or self.compute.dtype != "float32"
            case _:
                assert_never(self.mismatch.check)

    @property
    def answers(self) -> int:
        """Answers that an iteration samples, or with dynamic sampling keeps."""
        return self.rollout.prompts * self.refill * self.rollout.samples_per_prompt

    @property
    def refill(self) -> int:
        """How many times more questions an iteration asks because it will prune (CPPO)."""
        return round(1.0 / (1.0 - self.select.prune_rate)) if self.select.refill else 1

    def digest(self) -> str:
        """12 hex digits that two runs share only if every setting is the same, their names (arm, method) aside."""
        return settings_digest(self.model_dump(mode="json"))


def defaults_beside(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults, by dotted name, that other settings of a tree decide: task, greedy decoding, and a given model."""
    task = _said(tree, "task", "name", TaskSettings.model_fields["name"].default)
    of_task = EVALUATION_OF_TASK.get(task, {}) if isinstance(task, str) else {}
    if of_task and _said(tree, "evaluation", "temperature", None) == 0:
        of_task = {**of_task, "samples": 1}  # greedily, all answers to a problem are alike
    return {f"evaluation.{name}": value for name, value in of_task.items()} | defaults_of_model(tree)


def defaults_of_model(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Those that hold because a model is given, with other rates where adapters are trained; none without one."""
    if _said(tree, "model", "path", None) is None:
        return {}
    rank = _said(tree, "lora", "rank", 0)
    adapted = isinstance(rank, int | float) and rank > 0
    return {**OF_A_GIVEN_MODEL, **(OF_ADAPTERS if adapted else {})}


def _said(tree: Mapping[str, Any], section: str, name: str, default: Any) -> Any:
    said = _as_said(tree.get(section, {}))
    return said.get(name, default) if isinstance(said, Mapping) else default


def _as_said(section: Any) -> Any:
    return section.model_dump(exclude_unset=True) if isinstance(section, BaseModel) else section


def settings_digest(settings: Mapping[str, Any]) -> str:
    """12 hex digits of resolved settings as JSON, less the names they go by."""
    return digest({name: value for name, value in settings.items() if name not in ("arm", "method")})


def digest(value: Any) -> str:
    """12 hex digits of a JSON value's canonical text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
