"""Broken builds of the library, and the proof that a test or a stress run catches each of them."""
