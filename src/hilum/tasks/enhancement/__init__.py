"""Enhancement: the image that an image should become."""

__all__: list[str] = []
