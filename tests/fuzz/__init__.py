"""Fuzzing, for `make fuzz`: hostile bytes at the doors of a running service, and at its readers.

`models` sends mutants of model files through the whole service, `wire` sends broken frames and
messages to its sockets, `coverage` drives the readers of untrusted bytes by the code they reach.
"""
