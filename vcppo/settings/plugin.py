"""A task from outside vcppo, `task.name = "package.module:Class"`: its class, what that must have, and its options.

Nothing is imported before a setting names it. vcppo/tasks/plugin.py has the class that most tasks inherit from, and
docs/adding.md a whole one. A class may have, beside the methods of Task:

    Options                 a pydantic model that `task.options` is validated by; without one it is given the table
    fingerprint(options)    a class method: what problems and verdicts depend on beside options, as JSON, in place of a
                            digest of the source (vcppo/tasks/plugin_address.py): contents of files, versions of
                            libraries, a version of its own
    prompt_tokens, response_tokens, slack_tokens, steps_of_thought
                            attributes that estimates of memory and time take; each has a default
"""

import functools
import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, Field, JsonValue, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from vcppo.errors import ConfigError
from vcppo.settings.base import Settings
from vcppo.settings.evaluation import Problems
from vcppo.settings.fixed import PROMPT_TOKENS, WRITTEN_LINES

OUTSIDE = "package.module:Class"  # how such a task is named; a word of vcppo's own has no colon
ATTRIBUTES = ("name", "max_tokens")  # of a task, besides its methods
METHODS = (
    "tokenizer",
    "check_tokenizer",
    "training_prompts",
    "longest_prompt",
    "held_out_prompts",
    "demonstrations",
    "step_starts",
    "encode",
    "judge",
)


class PluginTaskSettings(Settings):
    """A class from outside asks."""

    in_every_record: ClassVar[bool] = False

    name: str = Field(description="of the class that asks")
    options: dict[str, JsonValue] = Field(
        {}, description="a table that the task's class is given; what is in it, it says"
    )

    @field_validator("name")
    @classmethod
    def _names_a_class(cls, name: str) -> str:
        if not _names_class(name):
            raise PydanticCustomError("task_name", "expected a task of vcppo, or package.module:Class")
        return name

    @property
    def task(self) -> Any:
        """The task, made once for each name and options: it has no state that a run changes.

        Raises:
            ConfigError: there is no such class, it is no task, or its options are wrong.
        """
        return _made(self.name, json.dumps(self.options, sort_keys=True))

    @property
    def exact_values(self) -> bool:
        """True if values can be computed: the class has `decision_path`, see ExactTask."""
        return callable(getattr(task_class(self.name), "decision_path", None))

    def problems(self, use: Problems) -> int:
        """See EmbeddedTaskSettings."""
        return len(self.task.held_out_prompts(use))

    @property
    def prompt_tokens(self) -> int:
        """The task's `prompt_tokens`; else its longest prompt by its own tokenizer, or a guess where it has none."""
        task = self.task
        if needs_model(type(task)):
            return int(getattr(task, "prompt_tokens", PROMPT_TOKENS))
        return int(getattr(task, "prompt_tokens", None) or task.longest_prompt(task.tokenizer()))

    @property
    def response_tokens(self) -> int:
        """The task's `response_tokens`; else its limit."""
        return int(getattr(self.task, "response_tokens", self.task.max_tokens))

    @property
    def slack_tokens(self) -> int:
        """Tokens from there to the task's limit."""
        return int(self.task.max_tokens) - self.response_tokens

    @property
    def steps_of_thought(self) -> int:
        """The task's `steps_of_thought`; else a guess."""
        return int(getattr(self.task, "steps_of_thought", WRITTEN_LINES))

    @property
    def vocabulary(self) -> int:
        """Words of the task's own tokenizer."""
        return len(self.task.tokenizer())


def needs_model(task: type) -> bool:
    """True if a task has no tokenizer of its own, hence reads with that of the model that is given."""
    return bool(getattr(getattr(task, "tokenizer", None), "left_out", False))


def reads_with_a_model(name: object) -> bool:
    """The same of whatever may be a task's name."""
    return isinstance(name, str) and _names_class(name) and needs_model(task_class(name))


def faults(
    settings: PluginTaskSettings, *, model: str | None, problems: Problems, source: Callable[[str], str]
) -> Iterator[str]:
    """Every reason why a run with such a task cannot be.

    Args:
        source: where the setting of a dotted name was said.
    Raises:
        ConfigError: there is no such class, or it is no task.
    """
    task = task_class(settings.name)
    wrong = list(_option_faults(task, settings, source))
    if wrong:
        yield from wrong
        return
    if needs_model(task) and model is None:
        yield (
            f"model.path = none: task.name = {settings.name} has no tokenizer of its own, it needs a model that can "
            "read; expected a folder or a hub name"
        )
    if not settings.problems(problems):
        yield f"evaluation.problems = {problems}: task.name = {settings.name} has none for it"


@functools.cache
def task_class(name: str) -> type:
    """Import the class.

    Raises:
        ConfigError: it cannot be imported, or is no task.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except (ImportError, SyntaxError) as error:
        raise ConfigError(
            f"task.name = {name}: importing {module} fails ({type(error).__name__}: {error}); expected a module that "
            "is installed, or lies in a folder of PYTHONPATH"
        ) from None
    if not isinstance(found, type):
        raise ConfigError(f"task.name = {name}: module {module} has no class {attribute}")
    there = [method for method in METHODS if callable(getattr(found, method, None))]
    abstract = sorted(getattr(found, "__abstractmethods__", ()))
    absent = [*abstract, *(method for method in METHODS if method not in there)]
    if absent:
        raise ConfigError(
            f"task.name = {name}: the class lacks {', '.join(absent)}; expected the methods of vcppo.tasks.base.Task, "
            "of which vcppo.tasks.plugin.PluginTask has most"
        )
    return found


@functools.lru_cache(maxsize=16)
def _made(name: str, options: str) -> Any:
    task = task_class(name)
    try:
        made = task(options_of(task, name, json.loads(options)))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"task.options = {options}: task.name = {name} refuses them ({error})") from None
    absent = [attribute for attribute in ATTRIBUTES if not hasattr(made, attribute)]
    if absent:
        raise ConfigError(f"task.name = {name}: its object has no {' and no '.join(absent)}")
    return made


def options_of(task: type, name: str, given: Mapping[str, JsonValue]) -> Any:
    """Return the options that the class is given: a validated model if it has one, else a dict.

    Raises:
        ConfigError: its model of them refuses them.
    """
    model = _model(task)
    if model is None:
        return dict(given)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("task.options", *first["loc"])))
        raise ConfigError(f"{where} = {first['input']!r} (of task.name = {name}): {_said(first)}") from None


def _option_faults(task: type, settings: PluginTaskSettings, source: Callable[[str], str]) -> Iterator[str]:
    model = _model(task)
    if model is None:
        return
    try:
        model.model_validate(settings.options)
    except ValidationError as error:
        for detail in error.errors():
            where = ".".join(map(str, ("task.options", *detail["loc"])))
            said = source(".".join(("task.options", *map(str, detail["loc"][:1]))))
            if detail["type"] == "extra_forbidden":
                there = ", ".join(model.model_fields) or "none"
                yield f"{where} (from {said}): task.name = {settings.name} has no such option, it has {there}"
            elif detail["type"] == "missing":
                yield f"{where}: task.name = {settings.name} needs it"
            else:
                yield f"{where} = {detail['input']!r} (from {said}): {_said(detail)}"


def _said(detail: Any) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}"


def _model(task: type) -> type[BaseModel] | None:
    model = getattr(task, "Options", None)
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _names_class(name: str) -> bool:
    module, colon, attribute = name.partition(":")
    return colon == ":" and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))
