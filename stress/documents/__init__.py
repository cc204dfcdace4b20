"""The files of a run: their initial content, which the writers and the checkers both know."""
