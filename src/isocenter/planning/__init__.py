"""Every decision before training: from data, machine and budget to a plan with reasons."""

from isocenter.planning.machine import Machine, this_machine
from isocenter.planning.plan import make_plan, with_settings
from isocenter.planning.plan_file import parse_value, plan_text, read_plan
from isocenter.planning.settings import Network, Settings, Training, settings
from isocenter.planning.split import split

__all__ = [
    "Machine",
    "Network",
    "Settings",
    "Training",
    "make_plan",
    "parse_value",
    "plan_text",
    "read_plan",
    "settings",
    "split",
    "this_machine",
    "with_settings",
]
