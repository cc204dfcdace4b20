"""What the supervisor does to the members of a cluster: one trouble at a time, so that a majority is at work."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from random import Random

from stress.documents import etcd
from stress.logs.history import Kind, Log
from stress.run.chaos import Clock
from stress.run.members import Cluster, Member, name_of
from stress.run.network import Network
from stress.run.plan import Plan

AWAY = (1.0, 3.0)
"""How long a member is dead, or stopped, in seconds: the least, and the most."""
CUT_OFF = (1.5, 5.0)
"""How long a member is cut off; an election takes about one second."""
QUIET = 1.0
"""Seconds from the end of one trouble to the beginning of the next, so that the cluster can catch up."""
LEADER = "leader"
FOLLOWER = "follower"


class Unrest:
    """Troubles at random moments. What is due while there is another trouble comes after it."""

    def __init__(self, plan: Plan, cluster: Cluster, network: Network, log: Log) -> None:
        """Draw the first moments; nothing happens yet."""
        self._cluster = cluster
        self._network = network
        self._log = log
        self._random = Random(f"{plan.seed} members")
        cut_off_every = 0.0 if network.trouble else plan.cut_off_every
        troubles: dict[Callable[[Member, str], Callable[[], None]], float] = {
            self._kill: plan.kill_member_every,
            self._stop: plan.stop_member_every,
            self._restart: plan.restart_member_every,
            self._cut_off: cut_off_every,
        }
        self._clocks = {act: Clock(Random(f"{plan.seed} {act.__name__}"), every) for act, every in troubles.items()}
        self._compaction = Clock(Random(f"{plan.seed} compactions"), plan.compact_every)
        self._due: list[Callable[[Member, str], Callable[[], None]]] = []
        self._end: Callable[[], None] | None = None
        """Ends the present trouble, if there is one."""
        self._until = 0.0
        """When that is due, or when the next trouble may begin."""

    def go_on(self, now: float) -> None:
        """End the present trouble, or begin the next one, if it is time to."""
        if self._compaction.rings(now):
            self._compact()
        self._due += [act for act, clock in self._clocks.items() if clock.rings(now) and act not in self._due]
        if now < self._until:
            return
        if self._end is not None:
            self.calm()
            self._until = now + QUIET
        elif self._due:
            act = self._due.pop(0)
            victim, role = self._choose()
            shortest, longest = CUT_OFF if act == self._cut_off else AWAY
            self._until = now + self._random.uniform(shortest, longest)
            self._end = act(victim, role)

    def calm(self) -> None:
        """End the present trouble."""
        if self._end is not None:
            end, self._end = self._end, None
            end()

    def _choose(self) -> tuple[Member, str]:
        """Return a member: half of the time, the leader."""
        leader = self._cluster.leader()
        if leader is not None and self._random.randrange(2):
            return leader, LEADER
        others = [member for member in self._cluster.members if member is not leader]
        return self._random.choice(others or self._cluster.members), FOLLOWER

    def _kill(self, member: Member, role: str) -> Callable[[], None]:
        """Kill a member, and start it again later."""
        member.kill()
        self._tell("kill_member", member, role)
        return member.start

    def _stop(self, member: Member, role: str) -> Callable[[], None]:
        """Stop a member, and let it continue later, as if no time had passed."""
        member.send(signal.SIGSTOP)
        self._tell("stop_member", member, role)
        return lambda: member.send(signal.SIGCONT)

    def _restart(self, member: Member, role: str) -> Callable[[], None]:
        """End a member in order, so that it gives up its leadership, and start it at once."""
        self._tell("restart_member", member, role)
        member.end()
        member.start()
        return lambda: None

    def _cut_off(self, member: Member, role: str) -> Callable[[], None]:
        """Cut a member off from all others; or let it hear them, but not one of them, or none, hear it."""
        others = [other.number for other in self._cluster.members if other is not member]
        if self._random.randrange(2):
            for other in others:
                self._network.cut(member.number, other)
                self._network.cut(other, member.number)
            how = "from all"
        else:
            deaf = self._random.choice([others, [self._random.choice(others)]]) if others else []
            for other in deaf:
                self._network.cut(member.number, other)
            how = f"towards {' and '.join(map(str, deaf))}"
        self._tell("cut_off", member, f"{role} {how}")
        return self._network.mend

    def _compact(self) -> None:
        """Let a member that answers compact the history, while others follow it."""
        for endpoint in self._cluster.endpoints:
            with suppress(etcd.UnavailableError):
                self._log.write(Kind.FAULT, name="compact", target=str(etcd.compact(endpoint)))
                return

    def _tell(self, what: str, member: Member, how: str) -> None:
        self._log.write(Kind.FAULT, name=what, target=f"{name_of(member.number)} {how}")
