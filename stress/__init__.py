"""Stress runs and benchmarks: what the tests cannot show in seconds."""
