"""The files of a run: what they hold at the beginning, which those who write and those who check both know."""
