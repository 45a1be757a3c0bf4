"""Lengths of a run's prompts and responses in tokens, before a model is loaded; memory and time count with these.

Prompts of a set, or of a task from outside, that lies here are read with a tokenizer that lies here; any others are
taken as `PROMPT_TOKENS`, or what their task says.
"""

import datetime
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcppo.planning.shapes import model_folder, positions_of
from vcppo.settings.fixed import PROMPT_TOKENS
from vcppo.settings.known_sets import is_file
from vcppo.settings.plugin import PluginTaskSettings
from vcppo.settings.run import RunSettings
from vcppo.settings.task import MathsSettings, MathsTaskSettings
from vcppo.tasks.plugin import PluginTask
from vcppo.tasks.problems import problem_sets

READ = 256  # problems of a set, evenly spaced, whose prompts are counted
TEMPLATE_TOKENS = 40  # of a chat template that cannot be written out here: roles, marks, a line of system prompt


@dataclass(frozen=True)
class Lengths:
    """Tokens of prompts and responses."""

    prompt: int  # on average
    longest_prompt: int
    written: int  # of a response that thinks to the end, at most
    limit: int  # at which a response is cut

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with the longest response."""
        return self.longest_prompt + self.limit


def lengths_of(settings: RunSettings) -> Lengths:
    """Return the lengths of a run, no longer than the model has positions."""
    task, set_limit, model = settings.task, settings.rollout.max_tokens, settings.model.path
    if isinstance(task, MathsTaskSettings):
        average, longest = _maths_prompts(task.maths, model) or (PROMPT_TOKENS, PROMPT_TOKENS)
        written = limit = set_limit or task.maths.max_tokens
    else:
        counted = _plugin_prompts(task, model) if isinstance(task, PluginTaskSettings) else None
        average, longest = counted or (task.prompt_tokens, task.prompt_tokens)
        written = set_limit or task.response_tokens
        limit = set_limit or task.response_tokens + task.slack_tokens
    if (positions := positions_of(settings)) is not None:
        left = max(positions - longest, 1)
        written, limit = min(written, left), min(limit, left)
    return Lengths(average, longest, written, limit)


def _maths_prompts(maths: MathsSettings, model: str | None) -> tuple[int, int] | None:
    """Tokens of prompts as the model will read them, on average and at most; None where set or tokenizer is elsewhere.

    The average is that of training prompts, the longest that of evaluation's too.
    """
    folder = _tokenizer_folder(model)
    if folder is None or not (is_file(maths.train) and is_file(maths.evaluate)):
        return None
    system = None if maths.system is None else {"role": "system", "content": maths.system}
    frame = _template(folder, system, enable_thinking=maths.think) if maths.template == "chat" else None
    extra = TEMPLATE_TOKENS if frame is None and maths.template == "chat" else 0

    def write(question: str) -> str:
        text = f"{question}\n\n{maths.instruction}".strip()
        return f"{text}\n\n" if frame is None else frame(text)

    sets = problem_sets(maths)
    questions = [[problem.question for problem in problems] for problems in (sets.train, sets.evaluate)]
    average, longest = _counted(folder, *questions, write=write, bare=frame is None)
    return average + extra, longest + extra


def _plugin_prompts(task: PluginTaskSettings, model: str | None) -> tuple[int, int] | None:
    """The same of a task that leaves prompts to `PluginTask`; None of one that does not, as one without end."""
    made, folder = task.task, _tokenizer_folder(model)
    inherited = ("encode", "longest_prompt", "training_prompts")
    if folder is None or any(getattr(type(made), x, None) is not getattr(PluginTask, x) for x in inherited):
        return None
    system = None if made.system is None else {"role": "system", "content": made.system}
    frame = _template(folder, system)
    if frame is None and _chat_template(folder)[0] is not None:  # one that is not understood here
        return None
    questions = [[prompt.text for prompt in prompts] for prompts in (made.training_problems(), made.held_out_prompts())]
    if not questions[0]:  # nothing to train on
        return None
    return _counted(folder, *questions, write=frame or made.bare_text, bare=frame is None)


def _tokenizer_folder(model: str | None) -> Path | None:
    folder = None if model is None else model_folder(model)
    return folder if folder is not None and (folder / "tokenizer.json").exists() else None


def _counted(
    folder: Path, trained: Sequence[str], measured: Sequence[str], *, write: Callable[[str], str], bare: bool
) -> tuple[int, int]:
    """Tokens of questions as prompts: of some of those that are trained on, on average; of the longest of all."""
    some = [trained[i * len(trained) // READ] for i in range(READ)] if len(trained) > READ else list(trained)
    longest = max([*trained, *measured], key=len)
    counts = _counts(folder, tuple(map(write, [*some, longest])), bare=bare)
    return round(sum(counts[:-1]) / len(some)), max(counts)


@functools.lru_cache(maxsize=8)
def _counts(folder: Path, texts: tuple[str, ...], *, bare: bool) -> tuple[int, ...]:
    """Tokens of each text; of bare ones with the special tokens that the tokenizer puts around them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tuple(len(row.ids) for row in tokenizer.encode_batch(list(texts), add_special_tokens=bare))


def _template(folder: Path, system: Mapping[str, str] | None, **words: Any) -> Callable[[str], str] | None:
    """Writes a question out in the tokenizer's chat template; None if it has none, or one that fails."""
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    source, names = _chat_template(folder)
    if source is None:
        return None
    extensions = ["jinja2.ext.loopcontrols"]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.globals["strftime_now"] = lambda form: datetime.date.today().strftime(form)

    def write(text: str) -> str:
        messages = [*([] if system is None else [system]), {"role": "user", "content": text}]
        return template.render(messages=messages, add_generation_prompt=True, **words, **names)

    try:
        template = environment.from_string(source)
        write("")
    except (TemplateError, ValueError, TypeError):
        return None
    return write


def _chat_template(folder: Path) -> tuple[str | None, dict[str, str]]:
    """(the chat template of a saved tokenizer, if any; its special tokens by name)."""
    try:
        config: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    file, stored = folder / "chat_template.jinja", config.get("chat_template")
    source = file.read_text(encoding="utf-8") if file.exists() else stored if isinstance(stored, str) else None
    tokens = {name: config.get(name) for name in ("bos_token", "eos_token", "pad_token")}
    named = {name: token["content"] if isinstance(token, dict) else token for name, token in tokens.items()}
    return source, {name: token for name, token in named.items() if isinstance(token, str)}
