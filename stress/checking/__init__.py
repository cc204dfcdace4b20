"""The checkers: pure functions that hold a history of operations against what the file holds in the end."""
