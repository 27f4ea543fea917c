"""The project's own verifier of a model file: structure, graph, operators' rules, and policy.

It runs in the locked-down worker before a runtime sees a byte; `verify` is its one entry.
"""
