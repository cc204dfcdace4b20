"""Exhaustive exploration of small programs: every interleaving of a few calls, against a specification.

``stepping`` runs calls, executor jobs and the event loop one step at a time, in one thread; ``programs`` has the little
language of the programs, and makes many of them; ``running`` makes a program's steps on real contexts and a real file,
and notes what is seen; ``specification`` says what may be seen; ``search`` goes through the schedules.
"""
