"""Survival: the time to an event, with censoring."""
