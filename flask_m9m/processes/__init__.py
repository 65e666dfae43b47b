"""Processes: fork-safe locks, the boot clock, and a directory shared on one machine."""
