"""`python -m hilum`, as torchrun starts it in several processes."""

from hilum.cli import main

main()
