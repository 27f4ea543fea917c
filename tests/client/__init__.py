"""The client, against a service made of threads; the real one is in `tests/integration`."""
