"""Evaluations of checkpoints: a folder for each, from which it goes on, and a report that says how to repeat it.

The folder's name is a hash of everything that the responses depend on, so a repeated evaluation only reads.
"""

import dataclasses
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from vcppo import __version__
from vcppo.engines import engine_note, make_engine
from vcppo.engines.base import Sampling
from vcppo.errors import CheckpointError, TrainingError
from vcppo.evaluation import report
from vcppo.evaluation.progress import EvaluationView
from vcppo.models import loading
from vcppo.models.limits import Limit, limit_of
from vcppo.models.sharding import prepare
from vcppo.rl.sampler import Sampler
from vcppo.settings.defaults import defaults_beside
from vcppo.settings.digests import digest
from vcppo.settings.loading import flatten
from vcppo.settings.model import LoraSettings
from vcppo.settings.run import RunSettings
from vcppo.stages.evaluation import evaluate
from vcppo.store.cache import GIVEN_MODEL, VERSIONS, engine_address
from vcppo.store.samples import SampledProblem, SampleFolder, write_whole
from vcppo.system.files import read_json
from vcppo.system.fingerprints import Checkpoint
from vcppo.system.processes import is_main, locked
from vcppo.system.provenance import provenance
from vcppo.tasks import make_task
from vcppo.tasks.base import Task
from vcppo.tasks.problems import task_address
from vcppo.types import Prompt

VERIFIERS = ("latex2sympy2-extended", "sympy")  # packages whose version a verdict may depend on, besides vcppo's


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of one checkpoint on the held-out problems of some settings; `out` will hold its folder."""

    checkpoint: Checkpoint
    settings: RunSettings
    out: Path

    @cached_property
    def task(self) -> Task:
        """The task of the held-out problems."""
        return make_task(self.settings.task)

    @cached_property
    def prompts(self) -> list[Prompt]:
        """The held-out problems."""
        return self.task.held_out_prompts(self.settings.evaluation.problems)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The checkpoint's tokenizer.

        Raises:
            CheckpointError: it has none.
            ConfigError: it cannot encode the task.
        """
        trust = self.settings.model.trust_remote_code
        tokenizer = loading.load_tokenizer(self.checkpoint.source, trust_remote_code=trust)
        self.task.check_tokenizer(tokenizer, self.checkpoint.name)
        return tokenizer

    @property
    def used(self) -> dict[str, Any]:
        """The settings that matter, as a tree; how many responses are generated at once does not."""
        tree = self.settings.model_dump(mode="json", include={"task", "engine", "evaluation"})
        for name in ("every", "samples_during", "responses_at_once"):
            del tree["evaluation"][name]
        dtype = self.settings.compute.dtype  # left out at its default: addresses of before stay
        passes = {} if dtype == "float32" else {"compute": {"dtype": dtype}}
        return {**tree, **passes, "rollout": {"max_tokens": self.settings.rollout.max_tokens}}

    @cached_property
    def address(self) -> str:
        """12 hex digits of all that the responses depend on."""
        problems = digest([dataclasses.astuple(prompt) for prompt in self.prompts])
        task = task_address(self.settings.task, trains=False)
        used = {**self.used, "engine": engine_address(self.settings.engine), "task": task}
        parts = [self.checkpoint.fingerprint, used, self.max_tokens, problems, verifier()]
        return digest(["checkpoint", VERSIONS["evaluation"], GIVEN_MODEL, *parts])

    @property
    def max_tokens(self) -> int:
        """The limit on a response's length."""
        return self.limit.tokens

    @cached_property
    def limit(self) -> Limit:
        """The limit, as long as model and engine allow.

        Raises:
            ConfigError: the one that was set does not fit, or the longest prompt alone.
        """
        trust = self.settings.model.trust_remote_code
        room = loading.room_of(self.checkpoint.source, self.settings.engine, trust_remote_code=trust)
        longest = max(map(len, self.task.encode(self.prompts, self.tokenizer)))
        max_tokens = self.settings.rollout.max_tokens
        return limit_of(max_tokens, self.task.max_tokens, room=room, longest_prompt=longest, of="evaluation")

    @property
    def notes(self) -> list[str]:
        """Lines for people: where the task's limit gives way, and where generation is slow."""
        trust = self.settings.model.trust_remote_code
        config = loading.load_config(self.checkpoint.source, trust_remote_code=trust)
        notes = (self.limit.note, engine_note(self.settings.engine, config))
        return [note for note in notes if note is not None]

    @property
    def folder(self) -> Path:
        """Folder of the responses and the report."""
        return self.out / "evaluations" / self.address

    @property
    def report_path(self) -> Path:
        """Path of the report, written once every problem is done."""
        return self.folder / "report.json"

    @property
    def title(self) -> str:
        """Checkpoint, task and sampling, in one line."""
        chosen, n = self.settings.evaluation, len(self.prompts)
        return (
            f"{self.checkpoint.name} on {self.task.name}: {n} problems, {chosen.samples} responses each, temperature "
            f"{chosen.temperature:g}, top-p {chosen.top_p:g}, at most {self.max_tokens} tokens"
        )

    def sample_folder(self, notice: Callable[[str], None]) -> SampleFolder:
        """Store of the responses."""
        return SampleFolder(self.folder / "samples", notice)

    def plan(self) -> list[str]:
        """Describe what running it would do."""
        stored, samples = self.sample_folder(lambda line: None), self.settings.evaluation.samples
        missing = sum(stored.read(number, prompt, samples) is None for number, prompt in enumerate(self.prompts))
        responses = missing * samples
        work = f"{responses:,} responses to write, at most {responses * self.max_tokens / 1e6:.3g} M tokens"
        return [self.title, f"{len(self.prompts) - missing} problems done already, {work}", f"in {self.folder}"]

    def run(self, view: EvaluationView) -> "Evaluated":
        """Sample the missing responses and write the report.

        Raises:
            CheckpointError: no such policy or tokenizer, one that the engine cannot decode, NaN in logits, or a
                folder that cannot be written.
            StudyError: another process runs the same evaluation.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.folder}: cannot be written ({error})") from None
        with locked(self.folder, "this evaluation") if is_main() else nullcontext():
            try:
                problems = evaluate(
                    self._sampler,
                    task=self.task,
                    settings=self.settings.evaluation,
                    samples=self.settings.evaluation.samples,
                    store=self.sample_folder(view.notify),
                    on_problem=view,
                )
            except TrainingError as error:
                raise CheckpointError(f"{self.checkpoint.name}: {error}") from None
            measures = report.measures(problems)
            content = {**self._description(), **report.results(problems, measures)}
            if is_main():
                write_whole(self.report_path, content)
        return Evaluated(self, problems, measures, content)

    def command(self) -> str:
        """Command that repeats this evaluation at the commit of its provenance."""
        defaults = {**flatten(RunSettings().model_dump(mode="json")), **defaults_beside(self.used)}
        changed = {name: value for name, value in flatten(self.used).items() if value != defaults.get(name)}
        if self.settings.model.trust_remote_code:  # responses do not depend on it, reading the checkpoint does
            changed["model.trust_remote_code"] = True
        assignments = [f"--set {shlex.quote(f'{name}={_as_toml(value)}')}" for name, value in changed.items()]
        return " ".join(["vcppo evaluate", shlex.quote(self.checkpoint.name), *assignments])

    def _sampler(self) -> Sampler:
        """Load policy and engine, only when responses are missing; the provenance is then recorded."""
        trust = self.settings.model.trust_remote_code
        policy = loading.load_policy(self.checkpoint.source, trust_remote_code=trust)
        known = policy.get_input_embeddings().num_embeddings
        largest = max(map(max, self.task.encode(self.prompts, self.tokenizer)))
        if largest >= known:
            raise CheckpointError(
                f"{self.checkpoint.name}: its tokenizer writes token {largest}, its policy knows {known} tokens; "
                "expected the tokenizer that belongs to it"
            )
        policy = prepare(policy, self.settings.compute, LoraSettings(), seed=0)
        engine = make_engine(self.settings.engine, policy)
        made_by = self._made_by()
        if is_main() and provenance() not in made_by:
            write_whole(self._made_by_path, [*made_by, provenance()])
        chosen = self.settings.evaluation
        sampling = Sampling(chosen.temperature, chosen.top_p, self.max_tokens)
        return Sampler(self.task, self.tokenizer, engine, sampling)

    @property
    def _made_by_path(self) -> Path:
        return self.folder / "provenance.json"

    def _made_by(self) -> list[dict[str, Any]]:
        path = self._made_by_path
        made_by: list[dict[str, Any]] = read_json(path) if path.exists() else []
        return made_by

    def _description(self) -> dict[str, Any]:
        chosen = self.settings.evaluation
        return {
            "schema": report.SCHEMA,
            "address": self.address,
            "checkpoint": {"name": self.checkpoint.name, "fingerprint": self.checkpoint.fingerprint},
            "task": self.task.name,
            "samples": chosen.samples,
            "sampling": {"temperature": chosen.temperature, "top_p": chosen.top_p, "max_tokens": self.max_tokens},
            "seed": chosen.seed,
            "settings": self.used,
            "verifier": verifier(),
            "command": self.command(),
            "provenance": self._made_by(),
        }


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation."""

    evaluation: Evaluation
    problems: list[SampledProblem]
    measures: list[report.Measure]
    report: dict[str, Any]

    def lines(self) -> list[str]:
        """The table for people, and the path of the report."""
        table = report.lines(self.problems, self.measures)
        return [self.evaluation.title, *table, f"report: {self.evaluation.report_path}"]


@dataclass(frozen=True)
class Comparison:
    """Several checkpoints on the same problems, each against the first."""

    evaluated: list[Evaluated]

    @cached_property
    def differences(self) -> list[list[report.Measure]]:
        """Differences of each checkpoint but the first from the first."""
        first, *others = self.evaluated
        return [report.differences(other.problems, first.problems) for other in others]

    def lines(self) -> Iterator[str]:
        """The tables of differences."""
        names = [one.evaluation.checkpoint.name for one in self.evaluated]
        for name, measures in zip(names[1:], self.differences, strict=True):
            yield from (f"{name} less {names[0]}, problem by problem", report.HEADER)
            yield from (measure.line() for measure in measures)

    def as_json(self) -> dict[str, Any]:
        """The reports, and the differences in the order of the checkpoints after the first."""
        return {
            "schema": report.COMPARISON_SCHEMA,
            "reports": [one.report for one in self.evaluated],
            "differences": [{measure.name: measure.as_json() for measure in measures} for measures in self.differences],
        }


def verifier() -> dict[str, str | None]:
    """Versions of what verdicts depend on, null for what is not installed."""
    installed: dict[str, str | None] = {"vcppo": __version__}
    for package in VERIFIERS:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = None
    return installed


def _as_toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)} = {_as_toml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_toml, value)) + "]"
    return "none" if value is None else json.dumps(value)
