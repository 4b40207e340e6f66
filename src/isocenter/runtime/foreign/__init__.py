"""Models of other programs, read as they are and used as their makers use them."""
