"""Tests of models that were scored on the same cases: rows with verdicts, margins, readers, ranks."""
