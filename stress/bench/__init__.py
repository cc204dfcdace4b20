"""Benchmarks: the same work by this project and by its peers, side by side, in one run.

``python -m stress.bench`` from the project's root measures everything; ``--quick`` only looks whether it runs, and
``--only`` chooses. Every competitor is measured in fresh processes, round robin, so that a machine that gets slower
half-way slows everybody; medians are quoted. Whatever counts is checked: a store whose counter does not equal the
increments that were acknowledged stops the run.
"""
