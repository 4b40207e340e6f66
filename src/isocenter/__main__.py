"""`python -m isocenter`, as torchrun starts it in several processes."""

from isocenter.cli import main

main()
