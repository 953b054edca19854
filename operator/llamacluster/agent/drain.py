"""When a part that was told to stop really stops: what runs is finished first."""

from __future__ import annotations

import math

from llamacluster.agent.clock import Clock

RESERVE_SECONDS = 8.0
"""Of the pod's grace, kept for the engine to end before the kubelet kills what is left."""
LINGER_SECONDS = 5.0
"""From being told to stop until the gate takes no connection any more. Kubernetes tells the pod and
those who send clients to it at the same time: a kube-proxy takes a second for it, with many
Services several, and load balancers of clouds as long. A client that they still send is served."""


class Drain:
    """Begins when the part is told to stop; over when its work is done, when the grace is over, or
    when it is told again."""

    def __init__(self, grace_seconds: float, clock: Clock) -> None:
        """`grace_seconds` is the pod's terminationGracePeriodSeconds."""
        self.seconds = max(grace_seconds - RESERVE_SECONDS, grace_seconds / 2)
        """How long work may go on."""
        self.linger_seconds = min(LINGER_SECONDS, grace_seconds / 10)
        """How much of that the gate still takes new connections."""
        self._clock = clock
        self._began = math.inf
        self._ends = math.inf

    def tell(self) -> None:
        """Told to stop; told again, at once."""
        now = self._clock.monotonic()
        self._ends = now if self.has_begun else now + self.seconds
        self._began = min(self._began, now)

    @property
    def has_begun(self) -> bool:
        return self._began < math.inf

    @property
    def lasts(self) -> float:
        """Seconds since the part was first told to stop; negative before that."""
        return self._clock.monotonic() - self._began

    @property
    def is_at_its_end(self) -> bool:
        """Whether even work that runs must stop now."""
        return self._clock.monotonic() >= self._ends

    def is_over(self, busy: bool) -> bool:
        """Whether a part stops now that is `busy` or is not."""
        return self.has_begun and (not busy or self.is_at_its_end)
