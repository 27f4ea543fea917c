"""The folder of approved models: its files, and the arrays to warm up with."""
