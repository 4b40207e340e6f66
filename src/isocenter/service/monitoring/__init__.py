"""The monitoring of a node's models: what it reads from the records, and what it writes there."""
