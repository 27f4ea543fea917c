"""Configuration: files, environment, flags, and what they may not say."""
