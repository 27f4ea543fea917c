"""The shared contract."""
