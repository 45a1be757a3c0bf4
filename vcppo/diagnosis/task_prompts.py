"""Prompts of vcppo's own samples, which are questions before any template: put into the template of their task."""

from dataclasses import replace
from functools import partial

from vcppo.diagnosis.responses import Dump
from vcppo.settings.task import MathsTaskSettings, TaskSettings
from vcppo.tasks.templates import encode


def as_asked(dump: Dump, task: TaskSettings) -> Dump:
    """Return vcppo's samples of `task.name = maths` with prompts as the policy read them; any other dump as it is.

    The embedded tasks have no template, and other trainers log what their policies read.
    """
    if dump.form != "vcppo" or not isinstance(task, MathsTaskSettings):
        return dump
    settings = task.maths
    thought = ", a thought opened" if settings.think else ""
    note = f"questions are read in the template of task.maths, {settings.template}{thought}"
    return replace(dump, notes=(*dump.notes, note), encode=partial(encode, settings=settings))
