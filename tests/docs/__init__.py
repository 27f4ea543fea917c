"""The documentation is run: its code, its commands, its tables and its links."""
