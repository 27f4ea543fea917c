"""Mutants of model files, through the whole service."""
