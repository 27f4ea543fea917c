"""The project's tests; the folders mirror those of the code."""
