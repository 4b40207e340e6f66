"""The command line: a thin shell over the verbs."""

from hilum.cli.commands import app
from hilum.cli.exit_codes import main

__all__ = ["app", "main"]
