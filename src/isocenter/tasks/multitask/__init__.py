"""Several kinds of problem, answered by one network."""

__all__: list[str] = []
