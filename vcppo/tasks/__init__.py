"""Sources of problems, and how responses to them are scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from vcppo.settings.plugin import PluginTaskSettings
from vcppo.tasks.base import Task

if TYPE_CHECKING:
    from vcppo.settings.task import TaskSettings


def make_task(settings: TaskSettings) -> Task:
    """Return the task that the settings name.

    Raises:
        ConfigError: it is one from outside, and there is no such class, it is no task, or its options are wrong.
    """
    if isinstance(settings, PluginTaskSettings):
        from_outside: Task = settings.task
        return from_outside
    match settings.name:
        case "digits":
            from vcppo.tasks.digits import DigitsTask

            return DigitsTask(settings)
        case "labels":
            from vcppo.tasks.labels import LabelsTask

            return LabelsTask(settings)
        case "endings":
            from vcppo.tasks.endings import EndingsTask

            return EndingsTask(settings)
        case "routes":
            from vcppo.tasks.routes import RoutesTask

            return RoutesTask(settings)
        case "maths":
            from vcppo.tasks.maths import MathsTask

            return MathsTask(settings.maths)
        case _:
            assert_never(settings.name)


__all__ = ["make_task"]
