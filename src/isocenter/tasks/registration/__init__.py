"""Registration: where each point of one image lies in another, learnt from pairs of images."""

__all__: list[str] = []
