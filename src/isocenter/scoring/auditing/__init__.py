"""Further looks at scored cases: groups, decisions, robustness, errors, explanations."""
