"""Hostile and honest programs on one service for minutes: `python -m tests.soak`."""
