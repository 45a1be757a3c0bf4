"""Lengths of a run's prompts and responses in tokens, before a model is loaded; memory and time count with these.

Prompts of a set that lies here are read with a tokenizer that lies here; any other set's are taken as `PROMPT_TOKENS`.
"""

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcppo.planning.shapes import model_folder, positions_of
from vcppo.settings.fixed import PROMPT_TOKENS
from vcppo.settings.known_sets import is_file
from vcppo.settings.run import RunSettings
from vcppo.settings.task import MathsSettings, MathsTaskSettings
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
    task, set_limit = settings.task, settings.rollout.max_tokens
    if not isinstance(task, MathsTaskSettings):
        prompt, written = task.prompt_tokens, set_limit or task.response_tokens
        return Lengths(prompt, prompt, written, set_limit or task.response_tokens + task.slack_tokens)
    counts = _prompts(task.maths, settings.model.path) or [PROMPT_TOKENS]
    limit, positions = set_limit or task.maths.max_tokens, positions_of(settings)
    if positions is not None:
        limit = max(min(limit, positions - max(counts)), 1)
    return Lengths(round(sum(counts) / len(counts)), max(counts), limit, limit)


def _prompts(maths: MathsSettings, model: str | None) -> list[int] | None:
    """Tokens of training prompts as the model will read them; None where the set or the tokenizer is elsewhere."""
    folder = None if model is None else model_folder(model)
    if folder is None or not (folder / "tokenizer.json").exists():
        return None
    if not (is_file(maths.train) and is_file(maths.evaluate)):
        return None
    from tokenizers import Tokenizer

    problems = problem_sets(maths).train
    if not problems:
        return None
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    frame = _template(folder, maths)
    some = [problems[i * len(problems) // READ] for i in range(READ)] if len(problems) > READ else problems
    texts = [f"{problem.question}\n\n{maths.instruction}".strip() for problem in some]
    extra = TEMPLATE_TOKENS if frame is None and maths.template == "chat" else 0
    framed = [f"{text}\n\n" if frame is None else frame(text) for text in texts]
    return [len(row.ids) + extra for row in tokenizer.encode_batch(framed, add_special_tokens=frame is None)]


def _template(folder: Path, maths: MathsSettings) -> Callable[[str], str] | None:
    """Writes a question out in the tokenizer's chat template; None if it cannot be, or bare text is asked."""
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    source, names = _chat_template(folder)
    if maths.template != "chat" or source is None:
        return None
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["strftime_now"] = lambda form: datetime.date.today().strftime(form)
    system = [] if maths.system is None else [{"role": "system", "content": maths.system}]

    def write(text: str) -> str:
        messages = [*system, {"role": "user", "content": text}]
        return template.render(messages=messages, add_generation_prompt=True, enable_thinking=maths.think, **names)

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
