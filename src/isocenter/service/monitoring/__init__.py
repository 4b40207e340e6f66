"""Monitoring of the models that a node runs, and what an alert does to them."""
