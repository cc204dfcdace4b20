"""The two public classes, and what they give out: transactions and watches."""
