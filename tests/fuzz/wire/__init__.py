"""Hostile bytes on the channel, the control socket, the attach socket, and over gRPC."""
