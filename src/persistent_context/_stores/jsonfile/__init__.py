"""The store in one plain JSON file, with a lock file beside it."""
