"""Attacks on the service from inside a real worker, and from hostile workers on everybody else."""
