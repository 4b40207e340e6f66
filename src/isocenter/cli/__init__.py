"""The command line: a thin shell over the verbs."""

from isocenter.cli.commands import app
from isocenter.cli.exit_codes import main

__all__ = ["app", "main"]
