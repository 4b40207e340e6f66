"""Models of other programs, read as they are and used as their makers use them."""

# Nothing: what a model's record may name is imported before all that it takes to open one.
__all__: list[str] = []
