"""Programs that end in the middle of everything: each saves once more at its end, and then has to be gone soon."""
