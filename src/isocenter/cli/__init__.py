"""The command line: a thin shell over the verbs."""

from isocenter.cli import exit_codes
from isocenter.cli.terminal import app

__all__ = ["app", "main"]
