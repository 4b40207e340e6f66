"""Faults that are planted by rule in real inputs, each with what is right about it."""
