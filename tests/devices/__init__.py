"""Devices: the choice between them, and each of them."""
