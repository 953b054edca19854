"""Where things are in the pods of a group: names, ports, paths."""

from __future__ import annotations

AGENT_UID = 10001
"""User and group of the engine image. It needs no capability and no writable root file system."""

WORKER_CONTAINER = "worker"
LEADER_CONTAINER = "leader"
PLAN_CONTAINER = "plan"
GATE_CONTAINER = "gate"
TUNNEL_CONTAINER = "tunnel"

RPC_PORT = 50052
"""Port of the worker's RPC server. Only the group's leader may connect; probes never do."""
AGENT_PORT = 50051
"""Port of the agents' HTTP, in workers and leaders alike."""
ENGINE_PORT = 18080
"""Port of llama-server in the leader, on loopback alone: the gate asks it, and the agent."""
TUNNELLED_AGENT_PORT = 18051
TUNNELLED_RPC_PORT = 18052
"""With RPC encryption, what others reach at AGENT_PORT and RPC_PORT of a worker is its tunnel. The
agent and the RPC server themselves are at these ports, on loopback alone: in the worker, and by
`tunnel_address` in the leader."""
TUNNEL_PORT = 18053
"""Port at which the tunnel of a leader's pod takes LEAD, on loopback alone."""
PROBE_PORT = 50050
"""Port of LIVEZ and READYZ in a worker with RPC encryption, for the kubelet, which has no
certificate."""
GATE_PORT = 18054
"""Port at which the gate tells the leader's agent what it counts, on loopback alone."""
OWN_PORTS = (
    *(AGENT_PORT, RPC_PORT, ENGINE_PORT),
    *(TUNNELLED_AGENT_PORT, TUNNELLED_RPC_PORT, TUNNEL_PORT, GATE_PORT),
)
"""Ports that the API of a group cannot have."""
DEFAULT_SERVER_PORT = 8080
"""Port of the OpenAI-compatible API in the leader, at which the gate listens."""
DEFAULT_GRACE_SECONDS = 300
"""The pods' terminationGracePeriodSeconds."""
DEFAULT_HUNG_ENGINE_SECONDS = 20
"""Without a sign of life while requests are under way, after which the engine hangs."""
QUEUE_PER_SLOT = 8
"""Requests that may wait in the gate for each slot, where nothing else is said."""
DEFAULT_QUEUE_SECONDS = 60
"""How long each of them may wait."""

LIVEZ = "/livez"
"""GET: 200 while the agent itself works."""
READYZ = "/readyz"
"""GET: 200 when the pod can do its part, else 503 with the reason as text."""
SERVING = "/serving"
"""GET to a leader: 200 while its engine takes requests. The gate asks; unlike READYZ it holds on
until the last request when the group is told to stop."""
WELCOMING = "/welcoming"
"""GET to a leader: 200 while new requests are welcome. The gate asks, and says the same to who asks
for its health. READYZ is never 200 before the gate has heard it."""
STATUS = "/status"
"""GET: `WorkerStatus` or `LeaderStatus`."""
METRICS = "/metrics"
"""GET to a leader: the group's metrics for Prometheus."""
ATTACH = "/attach"
"""POST `AttachRequest` to a worker: it restarts its RPC server and answers `WorkerStatus`."""
LEAD = "/lead"
"""POST to the tunnel of a leader's pod, as `/lead/N`: it leads to where worker N's name is now."""

MODEL_DIR = "/models"
"""Writable volume of the leader for fetched models: an emptyDir or the pod's own claim."""
CLAIM_DIR = "/model-claim"
"""Where the claim of a `pvc://claim/path` model is mounted, read-only: the file is
`/model-claim/path`."""
CREDENTIALS_DIR = "/model-credentials"
"""Where leader and planner find the Secret `model.credentialsSecret`."""
CONTROL_DIR = "/run/llamacluster-control"
"""Where leaders and workers have the Secret with their token mounted."""
CONTROL_TOKEN_KEY = "token"  # noqa: S105 - the file's name
CONTROL_TOKEN_FILE = f"{CONTROL_DIR}/{CONTROL_TOKEN_KEY}"
RPC_TLS_DIR = "/rpc-tls"
"""Where the tunnels find `ca.crt`, `tls.crt` and `tls.key`, read-only."""
LEAF_DELAY_SECONDS = 300
"""After which a tunnel shows a new certificate: by then the kubelets of the whole group, which look
for new Secrets about once a minute, have brought the others the authority that it is from."""
SCRATCH_DIR = "/tmp"  # noqa: S108 - a mount of this pod alone
"""Writable emptyDir in both pods, which their containers share. A tunnel has one of its own there,
in memory: HAProxy's configuration, and the socket by which it is told."""

GATE_DIR = "/gate"
"""The gate's own memory-backed emptyDir: what HAProxy reads, and the socket by which it is told."""
API_KEYS_DIR = "/api-keys"
"""Where the gate finds the Secret `server.apiKeysSecret`."""
TLS_DIR = "/tls"
"""Where the gate finds the Secret `server.tlsSecret`."""
GATE_STATUS_FILE = f"{SCRATCH_DIR}/gate.json"
"""`GateStatus`, from the gate's agent to the leader's: both containers have SCRATCH_DIR."""

SINCE_FILE = f"{SCRATCH_DIR}/leader-since"
"""Where a leader keeps its AttachRequest.leaderSince from one container to the next."""

LEADER_ADDRESS_ENV = "LWS_LEADER_ADDRESS"
"""`<leader pod>.<subdomain>.<namespace>`, set by LeaderWorkerSet in every pod of a group."""


def tunnel_address(worker: int) -> str:
    """The loopback address by which the tunnel in a leader's pod leads to the worker of this index,
    1 to MAX_WORKERS."""
    return f"127.0.1.{worker}"
