"""The promises of every store, tested on each of them, and a store in memory that can be made to fail."""
