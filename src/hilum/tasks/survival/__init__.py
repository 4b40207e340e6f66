"""Survival: the time to an event, with censoring."""

__all__: list[str] = []
