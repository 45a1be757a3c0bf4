"""Questions of vcppo's own samples become the prompts that their policy read."""

import dataclasses

import pytest
from arithmetic import make_tokenizer

from vcppo.diagnosis.responses import Dump, LoggedResponse
from vcppo.diagnosis.task_prompts import as_asked
from vcppo.diagnosis.tokens import tokenize
from vcppo.errors import ConfigError
from vcppo.settings.task import DigitsTaskSettings, MathsSettings, MathsTaskSettings
from vcppo.tasks.templates import encode

QUESTIONS = ("12 + 30 = ?", "7 + 5 = ?")
ROWS = tuple(LoggedResponse(problem=text, score=1.0, prompt=text, text="42") for text in QUESTIONS)
SAMPLES = Dump("samples", "vcppo", ROWS)


@pytest.mark.parametrize("maths", [{}, {"template": "plain"}, {"think": True}, {"system": "Add."}], ids=str)
def test_questions_are_read_in_the_template_of_the_task(maths: dict[str, object]) -> None:
    settings, tokenizer = MathsSettings.model_validate(maths), make_tokenizer()
    dump = as_asked(SAMPLES, MathsTaskSettings(maths=settings))
    tokenized = tokenize(dump, tokenizer, use_ids=False)
    assert list(tokenized.prompts) == encode(QUESTIONS, tokenizer, settings)
    assert dump.notes[-1].startswith(f"questions are read in the template of task.maths, {settings.template}")


def test_other_dumps_and_other_tasks_are_read_as_they_are() -> None:
    for form, task in (("generic", MathsTaskSettings()), ("vcppo", DigitsTaskSettings())):
        dump = dataclasses.replace(SAMPLES, form=form)
        assert as_asked(dump, task) is dump
    plain = tokenize(SAMPLES, make_tokenizer(), use_ids=False)
    assert plain.prompts == tuple(tuple(row) for row in make_tokenizer()(list(QUESTIONS))["input_ids"])


def test_a_tokenizer_without_a_template_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task.maths.template = chat: the tokenizer of .* has no chat"):
        tokenize(as_asked(SAMPLES, MathsTaskSettings()), make_tokenizer(chat=False), use_ids=False)
