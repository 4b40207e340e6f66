"""Instance segmentation: single objects, each with its own number."""

__all__: list[str] = []
