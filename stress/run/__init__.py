"""The run: the supervisor, the command line, the report, and soaks."""
