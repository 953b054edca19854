"""How long things may take, and why."""

from __future__ import annotations

NOTICED_SECONDS = 15.0
"""From a fault until the group is not Ready: two looks at a worker that is silent take 8 s, and the
kubelet's probe of a silent agent takes 4 s."""

LOST_NODE_SECONDS = 10
"""The chaos group's recovery.lostNodeSeconds."""
NODE_NOTICED_SECONDS = 75.0
"""Kubernetes calls a node lost when its kubelet has been silent for 50 s, and looks every 5 s; then
it takes the readiness from the node's pods. No one else can: the leader's own kubelet is silent."""
NODE_REPLACED_SECONDS = NODE_NOTICED_SECONDS + LOST_NODE_SECONDS + 30.0
"""Until a pod on a lost node has a successor: Kubernetes marks the pod for deletion
LOST_NODE_SECONDS after it has noticed, the operator deletes it for good, and a new one is made,
scheduled and started."""

RECOVERED_SECONDS = 30.0
"""From when the cause is gone until the group is Ready, beside the time in which the engine loads
the model and that in which Kubernetes makes a container wait before it starts it again
(CrashLoopBackOff: 10 s at the second end within ten minutes, and then doubled)."""
GIVEN_UP_SECONDS = 360.0
"""Beyond the bound, after which a group is said not to come back. CrashLoopBackOff alone may take
five minutes."""

FROZEN_FOR_GOOD_SECONDS = 110.0
"""Until the kubelet has replaced a container whose processes are all stopped: six liveness probes,
10 s apart and each with 5 s to answer, then SIGTERM, and after 30 s SIGKILL."""
