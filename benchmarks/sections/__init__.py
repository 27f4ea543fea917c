"""One module a section. Each has `TITLE`, `runs`, `run`, `figures` and `tables`."""
