"""Exhaustive exploration of small programs: every interleaving of a few calls, against a specification.

``stepping`` runs calls, executor jobs and the event loop one step at a time, in one thread; ``programs`` defines the
small language of the programs, and generates them; ``running`` runs a program's steps on real contexts and a real file,
and records what is observed; ``specification`` says what is allowed; ``search`` goes through the schedules.
"""
