"""Processes killed at every stage of a load and a call, and a service that is used for long."""
