"""Engines that run a TFLite model, and the reader that inspects one without running it."""
