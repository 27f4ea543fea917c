"""From a file, the environment and flags to the frozen settings of the broker."""
