"""The child processes of a run. Each kind is a module that is started with an assignment."""
