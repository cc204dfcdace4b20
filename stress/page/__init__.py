"""The report of a stress run as one page of HTML that needs nothing else: `python -m stress.page DIRECTORY`."""
