"""Every decision before training: from data, machine and budget to a plan with reasons."""

from isocenter.planning.machine import Machine, this_machine
from isocenter.planning.plan import make_plan, with_settings
from isocenter.planning.plan_file import parse_value, plan_text, read_plan
from isocenter.planning.registered import registered
from isocenter.planning.settings import Network, Settings, Splitting, Training, settings
from isocenter.planning.split import split

__all__ = [
    "Machine",
    "Network",
    "Settings",
    "Splitting",
    "Training",
    "make_plan",
    "parse_value",
    "plan_text",
    "read_plan",
    "registered",
    "settings",
    "split",
    "this_machine",
    "with_settings",
]
