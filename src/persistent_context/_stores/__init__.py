"""Storage behind one protocol: only this package deals with files, lock files and file system events."""
