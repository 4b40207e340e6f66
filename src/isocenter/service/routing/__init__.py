"""The choice of the model that answers a series: facts of series, conditions of rules, and reasons."""
