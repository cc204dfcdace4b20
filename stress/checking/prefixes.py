"""Checks lists that only grow: every read is the beginning of all later ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stress.checking.evidence import Evidence, Violation
from stress.checking.growth import Growth, check_gaps, check_growth
from stress.documents.hammered import GENERATION
from stress.logs.history import Operation, Outcome

_SEEING = ("see", "see_exclusively")


def check_prefixes(evidence: Evidence) -> Iterator[Violation]:
    """Every read of a list is a prefix of the later ones, and each acknowledged token stays in its place."""
    for key, operations in evidence.by_key().items():
        appends = {one.id: one for one in operations if one.name not in _SEEING}
        acknowledged = [one for one in appends.values() if one.outcome is Outcome.OK]
        reads = [one for one in operations if one.name in _SEEING and one.outcome is Outcome.OK]
        final = evidence.final.get(key, [0, []])

        seen = [*((one.result, one) for one in reads), (final, None)]
        places = {_number(*one.result): one.id for one in acknowledged}
        for (generation, tokens), reader in seen:
            for place, token in enumerate(tokens, 1):
                maker = appends.get(token)
                if maker is None or maker.outcome is Outcome.FAIL or (reader and maker.invoked > reader.finished):
                    message = f"no operation can have appended {token} to {key} by then"
                    yield Violation("foreign", message, _known(maker, reader))
                    continue
                before = places.setdefault(_number(generation, place), token)
                if before != token:
                    message = f"place {place} of generation {generation} of {key} has {token}; before it had {before}"
                    yield Violation("reordered", message, _known(appends.get(before), maker, reader))

        # An unknown append whose token was seen did happen, while it was pending.
        proven = {token: number for number, token in places.items() if token in appends}
        growths = [Growth(one, _number(*one.result)) for one in acknowledged]
        growths += [
            Growth(maker, proven[maker.id])
            for maker in appends.values()
            if maker.outcome is Outcome.UNKNOWN and maker.id in proven
        ]
        sightings = [Growth(one, _number(one.result[0], len(one.result[1])), sighting=True) for one in reads]
        unknown = [one for one in appends.values() if one.outcome is Outcome.UNKNOWN and one.id not in proven]
        length = _number(final[0], len(final[1]))
        yield from check_growth(key, growths, sightings, length)
        yield from check_gaps(key, growths, sightings, unknown, length)


def _number(generation: int, place: int) -> int:
    """Return how many tokens had been appended in total, up to the one at this place."""
    return generation * GENERATION + place


def _known(*operations: Operation | None) -> Sequence[Operation]:
    return [operation for operation in operations if operation is not None]
