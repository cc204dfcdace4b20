"""Programs that are ended in the middle of their work: each saves at its end, and must then exit soon."""
