"""The embedded tasks with several decisions: chains of digits with a choice at each line, each dial a setting."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from vcppo.settings.embedded import EmbeddedTaskSettings
from vcppo.settings.fixed import SLACK_LINES

TASK_NAME = "an embedded task (docs/tasks.md), problems from a hub or a file, or a class from outside (docs/adding.md)"


class ChainSettings(EmbeddedTaskSettings):
    """Settings of every task of the family: a chain of lines of digits, nuisance and luck."""

    in_every_record: ClassVar[bool] = False
    exact_values: ClassVar[bool] = True
    salt_digits: ClassVar[int] = 0  # of a problem, beside those that the chain starts from

    digits: int = Field(3, ge=2, le=4, description="digits of the state, hence of the answer")
    lines: int = Field(60, ge=2, le=2000, description="lines of thought that a right response needs")
    rule_seed: int = Field(0, ge=0, description="of the task's rules: what each context means, and which are hard")
    fillers: int = Field(0, ge=0, le=100, description="words that do not matter, one of which ends each line; 0: none")
    luck: float = Field(0.0, ge=0, le=0.5, description="chance the verifier lies, the same to all alike responses")

    @property
    def line_tokens(self) -> int:
        """Number, digits, and the word that does not matter."""
        return 1 + self.digits + (self.fillers > 0)

    @property
    def prompt_tokens(self) -> int:
        """The last line's number, the problem's digits, and what asks."""
        return self.digits + self.salt_digits + 2

    @property
    def numbers(self) -> int:
        """Lines that can be numbered."""
        return self.lines

    @property
    def response_tokens(self) -> int:
        """Every line, the mark of an answer and the end."""
        return self.lines * self.line_tokens + 2

    @property
    def slack_tokens(self) -> int:
        """A line more."""
        return self.line_tokens

    @property
    def steps_of_thought(self) -> int:
        """A line each."""
        return self.lines

    @property
    def vocabulary(self) -> int:
        """Four specials, ten digits, words that do not matter, a word a line."""
        return 4 + 10 + self.fillers + self.numbers


class LabelsTaskSettings(ChainSettings):
    """A label ends each line; some rules are misunderstood, and wrong labels count, or kill."""

    name: Literal["labels"] = Field("labels", description=TASK_NAME)
    lines: int = Field(60, ge=1, le=2000, description="lines of thought that a right response needs, a decision each")
    contexts: Literal[10, 100] = Field(10, description="rules: one for each first digit, or first and last digit")
    label_words: Literal["shared", "own"] = Field(
        "shared",
        description="`a` and `b` for all rules, so that an error is seen from digits and label together; or two words "
        "of its own for each, so that it is seen from the word alone",
    )
    misunderstood: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the rules that demonstrations do not know; unset: 0.3 of 10, 0.25 of 100",
    )
    wrong_label: Literal["counts", "kills"] = Field(
        "counts", description="a response may have some; or each leads to another chain, and so to a wrong response"
    )
    slip: float | None = Field(
        None,
        ge=0,
        le=1,
        description="chance of a wrong label where a rule is misunderstood; unset: 0.5 where they count, and where "
        "they kill what leaves a tenth of the demonstrations right",
    )
    errors_allowed: int | None = Field(
        None,
        ge=0,
        description="wrong labels of a right response; unset: as many as leave a tenth of the demonstrations right",
    )

    @model_validator(mode="after")
    def _errors_fit(self) -> Self:
        if self.wrong_label == "kills" and self.errors_allowed:
            raise ValueError(
                f"task.errors_allowed = {self.errors_allowed}: task.wrong_label = kills allows none; expected it unset"
            )
        return self

    @property
    def misunderstood_contexts(self) -> int:
        """Number of the rules that demonstrations do not know."""
        share = {10: 0.3, 100: 0.25}[self.contexts] if self.misunderstood is None else self.misunderstood
        return round(share * self.contexts)

    @property
    def line_tokens(self) -> int:
        """A label more."""
        return super().line_tokens + 1

    @property
    def response_tokens(self) -> int:
        """Tokens of the longest right response; where labels kill, it has the last line's digits after the mark too."""
        return super().response_tokens + (self.digits if self.wrong_label == "kills" else 0)

    @property
    def vocabulary(self) -> int:
        """Two labels more, or two for each rule."""
        return super().vocabulary + 2 * (self.contexts if self.label_words == "own" else 1)


class EndingsTaskSettings(ChainSettings):
    """A response may end at any line; at few of them it is right, and going on costs nothing up to the limit."""

    name: Literal["endings"] = Field("endings", description=TASK_NAME)
    contexts: Literal[10, 100] = Field(10, description="rules: one for each first digit, or first and last digit")
    good: float = Field(0.1, gt=0, lt=1, description="share of the contexts in which a response that ends is right")
    end_hazard: float = Field(0.05, gt=0, lt=1, description="chance a demonstration ends, at each line, good or not")

    @property
    def good_contexts(self) -> int:
        """Number of contexts in which a response that ends is right."""
        return max(1, round(self.good * self.contexts))

    @property
    def numbers(self) -> int:
        """Lines that can be numbered: some more than fit, as demonstrations do not know of the limit."""
        return self.lines + SLACK_LINES

    @property
    def response_tokens(self) -> int:
        """All lines but the last, the mark of an answer and the end."""
        return (self.lines - 1) * self.line_tokens + 2

    @property
    def slack_tokens(self) -> int:
        """Tokens to the end of the last line, where a response is cut."""
        return self.line_tokens - 2


class RoutesTaskSettings(ChainSettings):
    """The first word chooses: a short way that is seldom right and cannot be learnt, or a long one that can."""

    name: Literal["routes"] = Field("routes", description=TASK_NAME)
    salt_digits: ClassVar[int] = 3
    short_lines: int = Field(2, ge=1, le=4, description="lines of thought of the short way")
    good_guesses: int = Field(3, ge=0, le=3, description="of ten digits, how many are right on the short way")
    take_short: float = Field(0.5, ge=0, le=1, description="chance a demonstration takes the short way")
    early_stop: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="chance a demonstration of the long way stops, at each line before the last; unset: what makes a "
        "twentieth of them whole",
    )

    @model_validator(mode="after")
    def _short_is_shorter(self) -> Self:
        if self.short_lines >= self.lines:
            raise ValueError(f"task.short_lines = {self.short_lines}: expected less than task.lines = {self.lines}")
        return self

    @property
    def stop_chance(self) -> float:
        """Chance that a demonstration of the long way stops, at each line before the last."""
        if self.early_stop is not None:
            return self.early_stop
        return float(1.0 - 0.05 ** (1.0 / (self.lines - 1)))

    @property
    def response_tokens(self) -> int:
        """The choice, every line, the digits of the last after the mark, and the end."""
        return 1 + super().response_tokens + self.digits

    @property
    def vocabulary(self) -> int:
        """Two choices more."""
        return super().vocabulary + 2
