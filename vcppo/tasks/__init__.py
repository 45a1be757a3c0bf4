"""What is asked and how it is scored."""

from vcppo.config import TaskSettings
from vcppo.tasks.base import Task
from vcppo.tasks.digits import DigitsTask

TASKS = {"digits": DigitsTask}


def make_task(settings: TaskSettings) -> Task:
    """The task that the settings name."""
    return TASKS[settings.name](settings)


__all__ = ["TASKS", "Task", "make_task"]
