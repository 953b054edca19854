"""One operator works at a time: the one that holds the Lease.

kubernetes.aio.leaderelection is not for this: it takes the lease over by the wall clock, so that a
clock that jumps makes two leaders; a leader that sees another one in the Lease goes on until its
own deadline; a request without an answer keeps it leading for ever; and it gives nothing back at
the end. (kubernetes 37.0.2, read.)
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import structlog

from llamacluster.controller.kubeapi import LEASES, ApiError, KubeApi

if TYPE_CHECKING:
    from llamacluster.resources.metadata import Manifest

log = structlog.get_logger()

LEASE_SECONDS = 12
"""Nobody takes the lease from a holder that renewed it within this time."""
DEADLINE_SECONDS = 8.0
"""A holder that could not renew for as long ends. The rest of the lease is for requests that are
under way then, and for clocks that do not run alike."""
RETRY_SECONDS = 2.0
"""Between two looks or renewals, and up to a fifth more."""
ATTEMPT_SECONDS = 3.0
"""An attempt that takes longer is given up, so that several fit before the deadline."""
STOP_SECONDS = 5.0
"""For the work to stop before the lease is given back."""

FAILURES = (ApiError, aiohttp.ClientError, TimeoutError)


class LeaseLost(Exception):
    """Another operator may work from now on: this one must not."""


@dataclass(frozen=True)
class LeaseName:
    """Which Lease, and who wants it."""

    namespace: str
    name: str
    identity: str
    """Of this very process: another one of the same pod must wait like any other."""


class Election:
    """A candidate for the lease.

    Times are the event loop's, which is monotonic: wall clocks are written into the Lease for
    people, and never compared. A lease has run out when *this* candidate has seen it unchanged for
    as long as it says.
    """

    def __init__(
        self, api: KubeApi, wanted: LeaseName, jitter: Callable[[], float] = random.random
    ) -> None:
        self._api = api
        self._namespace = wanted.namespace
        self._name = wanted.name
        self._identity = wanted.identity
        self._jitter = jitter
        self._lease: Manifest | None = None
        """As last read or written; None when it must be read anew."""
        self._seen: tuple[str, float] | None = None
        """The version of somebody else's lease, and since when we have known it."""
        self._renewed: float | None = None
        """When the renewal that the API server has confirmed last was sent; None: not leading."""

    @property
    def leads(self) -> bool:
        """Whether this candidate holds the lease."""
        return self._renewed is not None

    def check(self) -> None:
        """Raises LeaseLost unless the lease is held for sure.

        Before each request of the work, because after a pause of the whole process the renewal may
        not be the first task that notices.
        """
        if self._renewed is None or _now() > self._renewed + DEADLINE_SECONDS:
            raise LeaseLost(f"the lease has not been renewed for {DEADLINE_SECONDS:.0f} s")

    async def lead(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for the lease, work while it is held, and give it back when the work ends or this is
        cancelled.

        Raises LeaseLost, at once: the work is told to end, but not waited for.
        """
        await self._acquire()
        log.info("leading", lease=f"{self._namespace}/{self._name}", identity=self._identity)
        working = asyncio.create_task(work())
        keeping = asyncio.create_task(self._keep())
        try:
            await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            keeping.cancel()
            await self._stop(working)
            raise
        if keeping.done():
            self._renewed = None
            working.cancel()
            keeping.result()
        keeping.cancel()
        await self._stop(working)
        working.result()

    async def _acquire(self) -> None:
        told: str | None = None
        while True:
            wait = RETRY_SECONDS * (1 + self._jitter() / 5)
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    other, left = await self._try()
            except FAILURES as error:
                self._lease = None
                if _said(error) != told and not _is_conflict(error):
                    told = _said(error)
                    log.warning("the lease cannot be had", error=told)
            else:
                if other is None:
                    return
                if other != told:
                    told = other
                    log.info("standing by", leader=other)
                wait = min(wait, max(left, 0.1))
            await asyncio.sleep(wait)

    async def _keep(self) -> None:
        """Renew for ever. Raises LeaseLost."""
        while True:
            await asyncio.sleep(RETRY_SECONDS * (1 + self._jitter() / 5))
            try:
                async with asyncio.timeout_at((self._renewed or 0.0) + DEADLINE_SECONDS):
                    other = await self._renew()
            except TimeoutError as error:
                raise LeaseLost(f"not renewed for {DEADLINE_SECONDS:.0f} s") from error
            if other is not None:
                raise LeaseLost(f"{other} holds it")

    async def _renew(self) -> str | None:
        """Try until it is done; returns who holds the lease if it is not us."""
        while True:
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    other, _ = await self._try()
            except FAILURES as error:
                # It may have been written all the same.
                self._lease = None
                log.warning("lease not renewed", error=_said(error))
                await asyncio.sleep(RETRY_SECONDS / 2)
            else:
                return other

    async def _try(self) -> tuple[str | None, float]:
        """Take or renew the lease; returns who else holds it, and for how many seconds it seems.

        Raises FAILURES.
        """
        if self._lease is None:
            self._lease = await self._api.get(LEASES, self._namespace, self._name)
        began = _now()
        holder, version, seconds = self._held()
        if holder not in (None, self._identity):
            if self._seen is None or self._seen[0] != version:
                self._seen = version, began
            left = self._seen[1] + seconds - began
            if left > 0 or self.leads:
                self._lease = None
                return holder, left
        if self._lease is None:
            self._lease = await self._api.create(LEASES, self._wanted(None))
        else:
            self._lease = await self._api.replace(LEASES, self._wanted(self._lease))
        self._renewed = began
        return None, 0.0

    def _held(self) -> tuple[str | None, str, float]:
        """Who holds the lease, its version, and for how many seconds from when that is seen."""
        if self._lease is None:
            # Whoever holds it may not know yet that somebody deleted it.
            deleted = self._seen is not None and not self.leads
            return "deleted" if deleted else None, "", LEASE_SECONDS
        spec = self._lease.get("spec", {})
        seconds = spec.get("leaseDurationSeconds", LEASE_SECONDS)
        return spec.get("holderIdentity"), self._lease["metadata"]["resourceVersion"], seconds

    async def _stop(self, working: asyncio.Task[None]) -> None:
        """End the work, and then give the lease back; without the latter if it does not end."""
        working.cancel()
        ended, _ = await asyncio.wait({working}, timeout=STOP_SECONDS)
        self._renewed = None
        if not ended:
            log.warning("the lease is left to run out: the work does not end")
            return
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                lease = await self._api.get(LEASES, self._namespace, self._name)
                if lease and lease.get("spec", {}).get("holderIdentity") == self._identity:
                    del lease["spec"]["holderIdentity"]
                    await self._api.replace(LEASES, lease)
        except FAILURES as error:
            log.warning("lease not given back", error=_said(error))
        else:
            log.info("lease given back")

    def _wanted(self, lease: Manifest | None) -> Manifest:
        """The lease with us as its holder."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = (lease or {}).get("spec", {})
        ours = before.get("holderIdentity") == self._identity
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": before.get("acquireTime", now) if ours else now,
            "renewTime": now,
            "leaseTransitions": before.get("leaseTransitions", 0)
            + (lease is not None and not ours),
        }
        metadata = {"name": self._name, "namespace": self._namespace}
        made = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
        return {**(lease or made), "spec": {**before, **spec}}


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_conflict(error: Exception) -> bool:
    """Whether another candidate was faster."""
    return isinstance(error, ApiError) and error.status == 409


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
