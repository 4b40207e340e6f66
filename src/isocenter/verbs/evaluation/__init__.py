"""Evaluation for all verbs: case selection, scoring, the record of the data."""
