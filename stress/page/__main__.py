"""Write the page of a run that was kept: `python -m stress.page DIRECTORY`."""

from __future__ import annotations

import sys

from stress.page.write import main

sys.exit(main())
