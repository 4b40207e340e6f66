"""Kinds of problem. A new kind is one file and its line in `index.TASKS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.tasks import fitting, index, multitask, properties, shared, task, task_catalogue, task_settings
    from hilum.tasks.task import Task

lazy_index(__name__)
