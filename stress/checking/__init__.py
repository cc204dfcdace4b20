"""The checkers: pure functions that compare a history of operations with the final content of the file."""
