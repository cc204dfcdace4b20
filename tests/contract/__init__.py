"""What every store promises, tested on each of them, and a store in memory that can be made to fail."""
