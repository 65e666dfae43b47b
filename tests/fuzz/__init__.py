"""Fuzzing: `scripts/fuzz` runs these harnesses for long, `test_harnesses` for a moment."""
