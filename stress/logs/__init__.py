"""What the processes of a run log, and the history that is read from it."""
