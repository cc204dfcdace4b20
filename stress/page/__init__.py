"""The report of a stress run as one self-contained HTML page: `python -m stress.page DIRECTORY`."""
