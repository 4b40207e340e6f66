"""Representation: what a network sees in images, learnt without references."""

__all__: list[str] = []
