"""Faults at every step: kills, errors and power losses at each system call of a write: `python -m stress.faults`."""
