"""The rules of planning: one file for each group of decisions."""
