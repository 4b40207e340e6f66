"""Detection: boxes with classes and scores."""

__all__: list[str] = []
