"""Findings: labels that do not exclude each other, for the whole image."""

__all__: list[str] = []
