"""Benchmarks: the same work by this project and by its peers, side by side, in one run.

``python -m stress.bench`` from the project's root measures everything; ``--quick`` only checks that it runs, and
``--only`` chooses. Every competitor is measured in fresh processes, round robin, so that a machine that slows down
half-way slows all of them; medians are quoted. All counts are checked: a store whose counter does not equal the
acknowledged increments stops the run.
"""
