"""Isocenter: one tool that carries a medical-imaging model through its whole life."""

__version__ = "0.1.0"
