"""The task: an embedded one, mathematical problems, or a class from outside."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Discriminator, Field, Tag

from vcppo.settings.base import Settings
from vcppo.settings.chains import TASK_NAME as _NAME
from vcppo.settings.chains import EndingsTaskSettings, LabelsTaskSettings, RoutesTaskSettings
from vcppo.settings.embedded import EmbeddedTaskSettings
from vcppo.settings.fixed import SLACK_LINES
from vcppo.settings.plugin import OUTSIDE, PluginTaskSettings


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
        description="a response's length limit unless rollout.max_tokens gives one; less where the model has no room",
    )
    time_limit_s: float = Field(2.0, gt=0, description="after which an answer that is still being compared is given up")
    memory_limit_mb: int = Field(1024, ge=64, description="that comparing one answer may take")
    workers: int | None = Field(None, ge=1, description="processes that compare; by default half the cores, 8 at most")


KNOWN = "known"  # what validation puts before the place of a mistake in a task of vcppo


class DigitsTaskSettings(EmbeddedTaskSettings):
    """The task, and how hard it is."""

    exact_values: ClassVar[bool] = True
    name: Literal["digits"] = Field("digits", description=_NAME)
    chain_length: int = Field(30, ge=2, le=2000, description="lines of thought that a right response needs")
    spread: int = Field(0, ge=0, description="target lines vary from chain_length - spread to chain_length")
    digits: int = Field(3, ge=2, le=6, description="digits of the state, hence of the answer")
    stop_hazard: float = Field(0.09, ge=0, lt=1, description="chance a demonstration stops early, at each line")

    @property
    def prompt_tokens(self) -> int:
        """The target line, the seed digits, and what asks."""
        return self.digits + 2

    @property
    def response_tokens(self) -> int:
        """Every line, and the answer with its mark and end."""
        return self.chain_length * (self.digits + 1) + self.digits + 2

    @property
    def slack_tokens(self) -> int:
        """Some lines more."""
        return SLACK_LINES * (self.digits + 1)

    @property
    def steps_of_thought(self) -> int:
        """A line each."""
        return self.chain_length

    @property
    def vocabulary(self) -> int:
        """Four specials, ten digits, a word a line of thought."""
        return 4 + 10 + self.chain_length + SLACK_LINES


class MathsTaskSettings(Settings):
    """Mathematical problems are asked."""

    exact_values: ClassVar[bool] = False
    name: Literal["maths"] = Field("maths", description=_NAME)
    maths: MathsSettings = MathsSettings()


OwnTaskSettings = DigitsTaskSettings | EndingsTaskSettings | LabelsTaskSettings | RoutesTaskSettings

KnownTaskSettings = Annotated[OwnTaskSettings | MathsTaskSettings, Field(discriminator="name")]


def _whose(given: Any) -> str:
    """Tell a task of vcppo's from one from outside, whose name has a colon."""
    name = given.get("name") if isinstance(given, Mapping) else getattr(given, "name", None)
    return OUTSIDE if isinstance(name, str) and ":" in name else KNOWN


TaskSettings = Annotated[
    Annotated[KnownTaskSettings, Tag(KNOWN)] | Annotated[PluginTaskSettings, Tag(OUTSIDE)], Discriminator(_whose)
]

EMBEDDED_TASKS: Mapping[str, type[EmbeddedTaskSettings]] = {
    model.model_fields["name"].default: model for model in get_args(OwnTaskSettings)
}
