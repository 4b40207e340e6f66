"""`python -m isocenter`, as torchrun starts it in several processes."""

from isocenter.cli import exit_codes

exit_codes.main()
