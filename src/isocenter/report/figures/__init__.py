"""Pictures from values: slices with outlines, charts with intervals.

Matplotlib is loaded with the first picture: what only predicts does without.
"""
