"""The TCP port and its clients."""
