"""The whole way from a dump to a report: critics read it, readings are measured, measurements are judged."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from vcppo import __version__
from vcppo.diagnosis.alignment import CriticAlignment, measure_alignments, surrogate_alignments
from vcppo.diagnosis.data_measures import measure_data
from vcppo.diagnosis.gradient_passes import GradientSettings
from vcppo.diagnosis.measures import measure_critic
from vcppo.diagnosis.outlook import outlook, outlook_line, workload_of
from vcppo.diagnosis.readings import read_critic, read_logged
from vcppo.diagnosis.report.choosing import numbered, token_texts, viewer_data
from vcppo.diagnosis.report.viewer import ViewerData
from vcppo.diagnosis.responses import Dump, Reading
from vcppo.diagnosis.schema import CriticPart, Provenance, Report
from vcppo.diagnosis.shared_readings import rows_of, shared_readings
from vcppo.diagnosis.stored_values import StoredValues
from vcppo.diagnosis.tokens import Tokenized, same_vocabulary, tokenize, within, writes
from vcppo.diagnosis.verdicts import judge
from vcppo.errors import DataError
from vcppo.models.configurations import positions
from vcppo.models.critic_folders import CriticFolder, find_folder
from vcppo.models.critic_layouts import CriticLayout, find_layout
from vcppo.models.loading import CRITIC, load_config, load_critic, load_policy, load_tokenizer
from vcppo.models.sharding import prepare
from vcppo.planning.diagnosis_plan import DiagnosisPlan
from vcppo.settings.digests import digest
from vcppo.settings.model import LoraSettings
from vcppo.settings.run import RunSettings
from vcppo.system.fingerprints import find_checkpoint
from vcppo.system.provenance import provenance

LOGGED = "logged values"
Progress = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much


@dataclass(frozen=True)
class NamedCritic:
    """A critic's folder, and what the report calls it."""

    name: str
    path: str

    @cached_property
    def folder(self) -> CriticFolder:
        """Folder of the weights within it."""
        return find_folder(self.path)

    @cached_property
    def layout(self) -> CriticLayout:
        """Layout in which the weights are saved.

        Raises:
            CheckpointError: no critic there that can be loaded.
        """
        load_config(self.folder.weights, CRITIC)
        return find_layout(self.folder, self.path)


@dataclass(frozen=True)
class Diagnosis:
    """A diagnosis: its inputs and its run; with several processes, each calls it alike.

    Attributes:
        critics: none: the dump's own values are looked at.
        policy: the one that wrote the responses; None: gradients are told from lengths alone, where that can be done.
        lambdas: of the advantages that are looked at.
        batch_size: responses an update of the policy has, for which noise is told.
        shown: responses that the page's viewer shows.
        folder: where values and gradients are kept until all are there, so that a stopped diagnosis goes on.
        gradient_responses: that gradients are taken of; None: all, or as many as half an hour pays for.
    """

    dump: Dump
    critics: tuple[NamedCritic, ...]
    policy: str | None
    lambdas: tuple[float, ...]
    batch_size: int
    shown: int
    settings: RunSettings
    folder: Path
    progress: Progress = field(default=lambda what, done, of: None)
    gradient_responses: int | None = None

    @cached_property
    def plan(self) -> DiagnosisPlan | None:
        """Plan of what models will read, and take; None where none reads, or of a family whose shapes are not known."""
        tokens = self._tokens
        if tokens is None or not tokens.rows:
            return None
        return outlook(
            self.settings,
            workload_of(self.dump, tokens, critics=len(self.critics), lambdas=len(self.lambdas)),
            policy=self.policy,
            critic=self.critics[0].folder.weights if self.critics else None,
            gradient_responses=self.gradient_responses,
        )

    def outlook(self) -> str | None:
        """One line on what will be read and how long that may take; None as of `plan`."""
        return None if self.plan is None else outlook_line(self.settings, self.plan)

    def run(self, command: str) -> tuple[Report, ViewerData]:
        """Read, measure, judge.

        Args:
            command: what the user typed, for the report.
        Raises:
            CheckpointError: no critic or policy there that can be loaded.
            DataError: the responses cannot be read by them.
        """
        began, seed = time.monotonic(), self.settings.seed
        readings, sources = self._readings()
        data = measure_data(self.dump, readings[0], seed=seed)
        parts = []
        for number, (reading, (source, layout)) in enumerate(zip(readings, sources, strict=True)):
            self.progress("measuring", number, len(readings))
            measured = measure_critic(reading, source=source, layout=layout, lambdas=self.lambdas, seed=seed)
            parts.append(measured)
        self.progress("measuring", len(readings), len(readings))
        parts = [_aligned(part, result) for part, result in zip(parts, self._alignments(readings), strict=True)]
        made_with = provenance()
        report = Report(
            verdicts=tuple(verdict for part in parts for verdict in judge(data, part)),
            data=data,
            critics=tuple(parts),
            provenance=Provenance(
                vcppo=__version__,
                commit=None if made_with["commit"] == "unknown" else made_with["commit"],
                command=command,
                made_at=datetime.now(UTC).isoformat(timespec="seconds"),
                seconds=round(time.monotonic() - began, 1),
                seed=seed,
                versions={name: number for name, number in made_with["versions"].items() if number is not None},
            ),
        )
        return report, self._viewer(readings)

    def _readings(self) -> tuple[list[Reading], list[tuple[str, str | None]]]:
        """Readings of the same responses, with the source and the layout of each critic."""
        if not self.critics:
            return [read_logged(self.dump, LOGGED)], [(self.dump.source, None)]
        readings: list[Reading] = []
        sources: list[tuple[str, str | None]] = []
        for critic in self.critics:
            reading, layout = self._read(critic)
            readings.append(reading)
            sources.append((critic.path, layout))
        return shared_readings(readings), sources

    def _read(self, critic: NamedCritic) -> tuple[Reading, str]:
        compute, trust = self.settings.compute, self.settings.model.trust_remote_code
        tokenizer = load_tokenizer(critic.folder.tokenizer, trust_remote_code=trust)
        model = prepare(load_critic(critic.path, trust_remote_code=trust), compute, LoraSettings(), seed=0)
        fingerprint = find_checkpoint(str(critic.folder.weights)).fingerprint
        reading = read_critic(
            model,
            tokenizer,
            self.dump,
            name=critic.name,
            max_tokens=self.settings.micro_batch_tokens,
            logged_tokenizer=self._common_tokenizer,
            store=StoredValues(self.folder, digest([fingerprint, compute.dtype])),
            progress=partial(self.progress, f"{critic.name} reads"),
        )
        return replace(reading, notes=(*critic.layout.notes, *reading.notes)), critic.layout.name

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerFast | None:
        """The policy's, where there is one."""
        if self.policy is None:
            return None
        return load_tokenizer(self.policy, trust_remote_code=self.settings.model.trust_remote_code)

    @cached_property
    def _common_tokenizer(self) -> PreTrainedTokenizerFast | None:
        """Whose tokens values are compared at: the policy's, else of critics with several tokenizers the first's.

        None: each critic's own. The first one's serves where the responses are text, or ids of its own.
        """
        if self._tokenizer is not None or len(self.critics) < 2 or self._reader is None:
            return self._tokenizer
        trust = self.settings.model.trust_remote_code
        others = [load_tokenizer(critic.folder.tokenizer, trust_remote_code=trust) for critic in self.critics[1:]]
        if all(same_vocabulary(self._reader, other) for other in others) or writes(self._reader, self.dump) is False:
            return None
        return self._reader

    def _alignments(self, readings: Sequence[Reading]) -> list[CriticAlignment]:
        """With the policy the real ones, else what lengths tell."""
        policy_path, tokens = self.policy, self._tokens
        if policy_path is None or tokens is None:
            return surrogate_alignments(readings, self.lambdas, batch_size=self.batch_size, seed=self.settings.seed)
        if any(reading.columns is not None for reading in readings):
            why = "a critic with another tokenizer has no value of every token that the policy chose"
            return [CriticAlignment((), None, (), why)] * len(readings)
        trust = self.settings.model.trust_remote_code
        limit = positions(load_config(policy_path, trust_remote_code=trust))
        before = len(tokens.notes)
        try:
            tokens = within(tokens, limit, f"the policy {policy_path}")
        except DataError as error:
            return [CriticAlignment((), None, (), str(error))] * len(readings)
        place = {row: number for number, row in enumerate(tokens.rows)}
        rows = rows_of(readings[0])
        fitting = torch.tensor([number for number, row in enumerate(rows.tolist()) if row in place], dtype=torch.int64)
        if not len(fitting):
            return [CriticAlignment((), None, (), "no response fits both critic and policy")] * len(readings)
        batch = tokens.batch([place[row] for row in rows[fitting].tolist()])
        notes: tuple[str, ...] = ()
        if len(fitting) < len(rows):
            readings = [reading.take(fitting) for reading in readings]
            notes = tuple(f"gradients: {note}" for note in tokens.notes[before:])
        policy = prepare(
            load_policy(policy_path, trust_remote_code=trust), self.settings.compute, LoraSettings(), seed=0
        )
        settings = GradientSettings(
            temperature=self.settings.rollout.temperature,
            max_tokens=self.settings.micro_batch_tokens,
            batch_size=self.batch_size,
            responses=self.gradient_responses if self.plan is None else self.plan.gradient_responses,
            seed=self.settings.seed,
            folder=self.folder / "gradients",
        )
        measured = measure_alignments(
            readings, self.lambdas, policy, batch, settings, partial(self.progress, "gradients")
        )
        return [replace(one, notes=(*notes, *one.notes)) for one in measured]

    def _viewer(self, readings: Sequence[Reading]) -> ViewerData:
        """Some responses with the values of every critic, and the text of their tokens."""
        rows, lengths = rows_of(readings[0]).tolist(), readings[0].response_mask.sum(dim=1).tolist()
        if self._tokens is None or self._reader is None:  # nobody can decode them: their ids stand there, or places
            ids = {
                row: self.dump.responses[row].tokens or range(length) for row, length in zip(rows, lengths, strict=True)
            }
            texts = numbered
        else:
            read = dict(zip(self._tokens.rows, self._tokens.responses, strict=True))
            ids = {row: read[row] for row in rows if row in read}
            texts = partial(token_texts, tokenizer=self._reader)
        return viewer_data(
            self.dump, readings, ids, texts, lambdas=self.lambdas, seed=self.settings.seed, responses=self.shown
        )

    @cached_property
    def _tokens(self) -> Tokenized | None:
        """The responses as the policy, or the first critic, has them."""
        if self._reader is None:
            return None
        use_ids = self._tokenizer is not None or writes(self._reader, self.dump) is not False
        return tokenize(self.dump, self._reader, use_ids=use_ids)

    @cached_property
    def _reader(self) -> PreTrainedTokenizerFast | None:
        """The policy's tokenizer, else the first critic's."""
        if self._tokenizer is not None or not self.critics:
            return self._tokenizer
        trust = self.settings.model.trust_remote_code
        return load_tokenizer(self.critics[0].folder.tokenizer, trust_remote_code=trust)


def _aligned(part: CriticPart, result: CriticAlignment) -> CriticPart:
    notes = (*part.notes, *result.notes, *([] if result.why is None else [f"no gradients: {result.why}"]))
    return part.model_copy(
        update={
            "alignment": result.alignments,
            "best_lambda": result.best_lambda,
            "lambdas_as_good": result.lambdas_as_good,
            "notes": notes,
        }
    )
