"""How far a download or a load is, in steps that are worth a write. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from llamacluster.api.status import GroupProgress, GroupStatus

STEP_PERCENT = 5
"""Less is no news: each step is a write of the status."""


def with_progress(
    status: GroupStatus, previous: GroupStatus | None, told: object, now: str
) -> GroupStatus:
    """The status with what the agent tells of the progress, also in words."""
    progress = progress_told(told, now)
    if progress is None:
        return status
    before = previous.progress if previous and previous.reason == status.reason else None
    if before and before.percent == progress.percent and (before.eta or not progress.eta):
        progress = before
    left = f"{progress.percent} %"
    if progress.eta:
        left += f", until about {progress.eta[11:16]} UTC"
    return status.model_copy(update={"progress": progress, "message": f"{status.message} ({left})"})


def progress_told(answer: object, now: str) -> GroupProgress | None:
    """What the agent says; None for what an older or newer one says otherwise."""
    match answer:
        case {"bytes": int(done), "total": int(total), **more} if 0 <= done <= total != 0:
            percent = 100 * done // total
            return GroupProgress(
                percent=percent - percent % STEP_PERCENT, eta=_eta(more.get("secondsLeft"), now)
            )
    return None


def _eta(seconds: object, now: str) -> str | None:
    if not isinstance(seconds, int | float) or not 0 <= seconds < 2**31:
        return None
    moment = datetime.fromisoformat(now) + timedelta(seconds=round(seconds))
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
