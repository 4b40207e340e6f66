"""Tests of differences between models: areas, calls, means, readers, margins."""
