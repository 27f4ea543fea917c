"""The broker: sessions, quotas and supervision; it never parses a model or trusts a worker."""
