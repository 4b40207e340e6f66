"""Regression: measured values of the whole image."""

__all__: list[str] = []
