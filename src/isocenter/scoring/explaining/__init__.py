"""Explanations of cases, for `evaluate`, which loads torch and captum only where somebody asks for maps."""
