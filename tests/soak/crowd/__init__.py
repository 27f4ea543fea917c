"""A crowd of programs on one daemon, some of which are killed: `python -m tests.soak.crowd`."""
