"""Devices that run parts of a model beside the CPU's kernels: asked, partitioned, compiled."""
