"""Groups of people, and how far a model's figures lie apart among them."""
