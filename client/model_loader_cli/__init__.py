"""The `model-loader` command: run, inspect and watch models from a terminal.

One command a file in `commands`; it parses no model and imports no runtime itself.
"""
