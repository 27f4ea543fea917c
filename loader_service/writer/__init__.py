"""Writes TFLite models: for tests, examples, benchmarks, and the warm-up of the zygote."""
