"""Measuring honestly: the mechanism of `model-loader bench` and of the project's own benchmarks.

It knows no model, no target and no figure of this project: those are in `benchmarks/`.
"""
