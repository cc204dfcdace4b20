"""The logs of the processes of a run, and the history that is read from them."""
