"""The calls in flight on a key."""

import itertools

from persistent_context._model.draft import Origin
from persistent_context._model.flights import Flights
from persistent_context._model.merge import Unsaved
from persistent_context._model.operations import Write
from persistent_context._model.tracking import Tracker


def write(moment):
    """A call that includes a change made at a moment."""
    change = Unsaved(b"0", b"%d" % moment, moment)
    return Write("save", ("k",), {"k": change}, Origin(Tracker(), 0, moment))


class TestSent:
    def test_the_changes_of_calls_that_have_ended_are_forgotten(self):
        """One call that stays in flight for long keeps only its own change, and not those of all that come and go."""
        flights = Flights(itertools.count())
        flights.begin(write(1))
        for moment in range(2, 100):
            other = write(moment)
            flights.begin(other)
            list(flights.end(other))
        sent = flights.on("k").sent

        assert (b"1", True) == (sent[1], len(sent) < 10)
