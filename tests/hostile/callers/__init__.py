"""Callers that try to exhaust the service: as another user where root runs the tests."""
