"""Mathematical problems with reference answers, for a model that reads text.

An answer is what stands in the last `\\boxed{}`, after the thought if the prompt opened one. It is a value, not a
computation that the verifier would carry out: vcppo/tasks/forms.py says which forms there are. Integers are compared
here, by their digits, as AIME's are; everything else goes to the verifier's processes. What cannot be read is
UNREADABLE, with a note:

    no answer       no box (nor a plain number, with task.maths.boxed_only = false), or the thought never ended
    too long        an expression of more than LONGEST characters
    unprintable     control characters or broken Unicode in the expression
    other digits    digits that are not 0 to 9, such as ٢ or ２ or ²
    not an integer  where only integers are answers (task.maths.answers = integer)
    not evaluated   right or wrong, something is left to work out in it that is not in the reference (task.maths.form)
    not maths       nothing that sense can be made of
    reference       the reference answer is nothing that sense can be made of
    nesting         too deep to compare
    time, memory    more than the limits; crash: the process that compared it died
"""

import functools
import unicodedata
from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerFast

from vcppo.errors import ConfigError
from vcppo.settings.evaluation import Problems
from vcppo.settings.known_sets import form_of, label
from vcppo.settings.task import MathsSettings
from vcppo.tasks.extraction import after_thought, as_integer, is_other_digit, last_box, last_number, unreadable_note
from vcppo.tasks.lines import line_starts
from vcppo.tasks.problems import Problem, evaluation_problems, problem_sets
from vcppo.tasks.templates import encode, with_instruction
from vcppo.tasks.verifier import Comparison, shared_verifier
from vcppo.types import Demonstration, Judgement, Prompt, Verdict

BOXED = "\\boxed{17}"  # what every tokenizer has to write
TAIL = 2000  # characters at the end of a response that are searched for an answer without a box


class MathsTask:
    """See the module and docs/maths.md."""

    def __init__(self, settings: MathsSettings) -> None:
        self.settings = settings
        self.name = label(settings.evaluate)
        self.max_tokens = settings.max_tokens

    @functools.cached_property
    def _train(self) -> tuple[Problem, ...]:
        """Read on first use by training: an evaluation needs no training set."""
        return problem_sets(self.settings).train

    @functools.cached_property
    def _solved(self) -> list[Problem]:
        return [problem for problem in self._train if problem.solution]

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The task has none: the tokenizer is the model's."""
        raise ConfigError("model.path = none: task.name = maths reads with its model's tokenizer, expected a model")

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerFast, source: str) -> None:
        """See Task: a boxed number comes back as it was."""
        text = tokenizer.decode(tokenizer(BOXED, add_special_tokens=False)["input_ids"])
        if "".join(text.split()) != BOXED:
            raise ConfigError(
                f"task.name = maths: the tokenizer of {source} makes {text!r} of {BOXED!r}, so it can neither read "
                "problems nor write responses; expected a model that reads text, or, for a policy of the embedded "
                "task, task.name = digits"
            )

    def training_prompts(self, count: int, rng: torch.Generator) -> list[Prompt]:
        """See Task."""
        picks = torch.randint(len(self._train), (count,), generator=rng).tolist()
        return [self._prompt(self._train[i]) for i in picks]

    def longest_prompt(self, tokenizer: PreTrainedTokenizerFast) -> int:
        """See Task."""
        return max(map(len, self.encode([self._prompt(problem) for problem in self._train], tokenizer)))

    def held_out_prompts(self, problems: Problems = "report") -> list[Prompt]:
        """See Task: the problems of `task.maths.evaluate`."""
        return [self._prompt(problem) for problem in evaluation_problems(self.settings)]

    def demonstrations(self, count: int, rng: torch.Generator) -> list[Demonstration]:
        """Solutions of training problems, as thoughts if the prompt opens one.

        Raises:
            ConfigError: there are no solutions.
        """
        if not self._solved:
            raise ConfigError(
                f"task.maths.train = {self.settings.train}: it has no worked solutions, which the cold start imitates; "
                "name their column with task.maths.solution_column, or take a set that has some"
            )
        picks = torch.randint(len(self._solved), (count,), generator=rng).tolist()
        return [self._demonstration(self._solved[i]) for i in picks]

    def step_starts(self, pieces: Sequence[str]) -> list[int]:
        """See Task: a line that is not blank is a step."""
        return line_starts(pieces)

    def encode(self, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerFast) -> list[tuple[int, ...]]:
        """See Task."""
        return encode([prompt.text for prompt in prompts], tokenizer, self.settings)

    def judge(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
        """See Task."""
        first = [self._read(text, prompt.answer) for text, prompt in zip(texts, prompts, strict=True)]
        open_cases = [case for case in first if isinstance(case, Comparison)]
        if not open_cases:
            return [case for case in first if isinstance(case, Judgement)]
        limits = self.settings
        verifier = shared_verifier(
            workers=limits.workers, time_limit_s=limits.time_limit_s, memory_limit_mb=limits.memory_limit_mb
        )
        compared = iter(verifier.judge(open_cases))
        return [case if isinstance(case, Judgement) else next(compared) for case in first]

    def _read(self, text: str, reference: str) -> Judgement | Comparison:
        """Return a verdict where it is plain, else what has to be compared."""
        settings = self.settings
        form = form_of(settings.train, settings.evaluate) if settings.form == "by-set" else settings.form
        final_text = after_thought(text, settings.think_close) if settings.think else text
        answer = None if final_text is None else last_box(final_text)
        if answer is None and final_text is not None and not settings.boxed_only:
            if form == "expression" and settings.answers != "integer" and final_text.strip():
                return Comparison(_cleaned(final_text[-TAIL:]), reference, boxed=False)
            answer = last_number(_cleaned(final_text[-TAIL - 1 :]), start=int(len(final_text) > TAIL))
        if not answer:
            return _unreadable("no answer")
        if (note := unreadable_note(answer)) is not None:
            return _unreadable(note)
        number, wanted = as_integer(answer), as_integer(reference)
        if number is not None and wanted is not None:
            return Judgement(Verdict.CORRECT if number == wanted else Verdict.WRONG)
        if settings.answers == "integer":
            return _unreadable("not an integer")
        if answer == reference:
            return Judgement(Verdict.CORRECT)
        return Comparison(answer, reference, boxed=True, form=form)

    def _prompt(self, problem: Problem) -> Prompt:
        return Prompt(problem.name, with_instruction(problem.question, self.settings), problem.answer)

    def _demonstration(self, problem: Problem) -> Demonstration:
        solution, close = problem.solution or "", self.settings.think_close
        if self.settings.think:
            solution = solution.removeprefix(self.settings.think_open).lstrip()
            if close not in solution:
                solution = f"{solution}\n{close}\n\nThe final answer is \\boxed{{{problem.answer}}}."
        return Demonstration(self._prompt(problem), solution)


def _unreadable(note: str) -> Judgement:
    return Judgement(Verdict.UNREADABLE, note)


def _cleaned(text: str) -> str:
    """Replace characters that no answer can hold, so that the text is searched like any other."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if is_other_digit(c) or (unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\r\t")
        else c
        for c in text
    )
