"""Group commit: the queue of waiting calls, the threads that run it, and the cycle that carries them out."""
