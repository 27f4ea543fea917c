"""Fuzzing: hostile models and hostile bytes on every socket, in volume (``make fuzz``)."""
