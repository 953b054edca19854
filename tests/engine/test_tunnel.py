"""RPC encryption: real groups whose leader and workers talk through HAProxy with mutual TLS."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llamacluster.agent.contract.places import AGENT_PORT, AGENT_UID, READYZ, RPC_PORT, STATUS
from llamacluster.controller.authority import Issued, issue
from tests.engine.group import DOMAIN, Group, eventually
from tests.engine.test_gate import SLOW, Stream
from tests.engine.test_group import GREEDY, whole
from tests.kind import docker
from tests.model import SENTENCE

pytestmark = pytest.mark.engine


def issued() -> Issued:
    return issue("x", f"*.{DOMAIN}", datetime.now(UTC))


def keep(folder: Path, new: Issued, *former: Issued) -> None:
    """As the Secret's volume has them. The files that are mounted stay the same ones."""
    texts = {
        "ca.crt": "".join(one.authority for one in (new, *former)),
        "tls.crt": new.certificate,
        "tls.key": new.key,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
        shutil.chown(folder / name, AGENT_UID, AGENT_UID)
        (folder / name).chmod(0o400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("rpc-tls")
    for parent in (made, *made.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    return made


@pytest.fixture(scope="module")
def certificates(folder: Path) -> Issued:
    made = issued()
    keep(folder, made)
    return made


@pytest.fixture(scope="module")
def serving(engine_image: str, models: Path, folder: Path, certificates: Issued) -> Iterator[Group]:
    group = Group(docker.find_or_start(), engine_image, models, tls=folder, leaf_delay_seconds=10)
    whole(group).until("Ready", seconds=120)
    yield group
    group.remove()


def address(group: Group, index: int) -> str:
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return group.engine.docker("inspect", "--format", form, group.worker(index).id).strip()


def context(folder: Path, *, certificate: Path | None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    if certificate:
        made.load_cert_chain(certificate / "tls.crt", certificate / "tls.key")
    return made


def ask(group: Group, port: int, tls: ssl.SSLContext | None) -> bytes:
    """What a worker's port answers to a request for the status."""
    with socket.create_connection((address(group, 1), port), 10) as plain:
        connection = tls.wrap_socket(plain, server_hostname=f"x-0-1.{DOMAIN}") if tls else plain
        connection.sendall(f"GET {STATUS} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while part := connection.recv(4096):
            answer += part
        return answer


def refuses(ask: Callable[[], bytes]) -> bool:
    """Whether nothing comes back."""
    try:
        return ask() == b""
    except OSError:  # ssl.SSLError is one
        return True


def test_the_answer_is_that_of_a_plain_group(serving: Group) -> None:
    assert serving.ask("/completion", GREEDY)["content"] == SENTENCE
    assert [row["layers"] for row in serving.status()["placement"]] == [13, 12]
    for index in (1, 2):
        assert serving.worker(index).get(READYZ, 50050) == (200, "ok\n")


def test_nobody_without_a_certificate_of_the_group_is_let_in(
    serving: Group, folder: Path, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    keep(stranger, issued())
    ours = context(folder, certificate=folder)
    assert b'"role": "worker"' in ask(serving, AGENT_PORT, ours)
    for port in (AGENT_PORT, RPC_PORT):
        assert refuses(lambda: ask(serving, port, None))  # noqa: B023
        assert refuses(lambda: ask(serving, port, context(folder, certificate=None)))  # noqa: B023
        other = context(folder, certificate=stranger)
        assert refuses(lambda: ask(serving, port, other))  # noqa: B023
    assert serving.status()["reason"] == "Ready"
    assert serving.ask("/completion", GREEDY)["content"] == SENTENCE


def test_behind_the_tunnel_nothing_listens_for_others(serving: Group) -> None:
    for port in (18051, 18052, 18053):
        with pytest.raises(OSError):
            socket.create_connection((address(serving, 1), port), 5)


OF_HAPROXY = """
import pathlib, socket

def ask(family, address):
    try:
        with socket.socket(family) as connection:
            connection.settimeout(5)
            connection.connect(address)
            connection.sendall(b"show info\\n\\n")
            return connection.recv(65536).decode()
    except OSError as error:
        return str(error)

for port in (18053, 18054):
    print(ask(socket.AF_INET, ("127.0.0.1", port)))
for file in pathlib.Path("/tmp").rglob("*"):
    print(file)
    if file.is_socket():
        print(ask(socket.AF_UNIX, str(file)))
print([folder for folder in ("/rpc-tls", "/gate") if pathlib.Path(folder).exists()])
"""


def test_the_engines_container_has_no_way_to_the_private_key(serving: Group) -> None:
    """HAProxy's runtime API shows its memory, and its configuration says where else it listens."""
    for pod in ("x-0", "x-0-1"):
        of_engine = serving.pods[pod].run_python(OF_HAPROXY)
        of_tunnel = serving.tunnel(pod).run_python(OF_HAPROXY)
        for secret in ("Name: HAProxy", "/tmp/tunnel.cfg", "/tmp/haproxy.sock", "/rpc-tls"):
            assert secret in of_tunnel
            assert secret not in of_engine
        assert of_engine.endswith("[]\n")


def test_a_worker_that_comes_back_at_another_address_is_found(serving: Group) -> None:
    before, former = serving.until("Ready")["formations"], address(serving, 2)
    pods = (serving.tunnel("x-0-2").id, serving.worker(2).id)
    serving.engine.docker("rm", "--force", "--volumes", *pods)
    other = serving.engine.docker(
        *("run", "--detach", "--network", serving.network, "--entrypoint=sleep"),
        *(serving.image, "600"),
    ).strip()
    try:
        serving.start_worker(2)
        assert address(serving, 2) != former
        serving.until("Ready", formations=before + 1)
        assert serving.ask("/completion", GREEDY)["content"] == SENTENCE
    finally:
        serving.engine.docker("rm", "--force", other)


def test_a_killed_rpc_server_is_seen_at_once_and_the_group_heals(serving: Group) -> None:
    before = serving.until("Ready")["formations"]
    stream = Stream(serving, {**SLOW, "n_predict": 100_000})
    eventually(lambda: stream.tokens)
    serving.worker(2).kill_processes("ggml-rpc-server")
    serving.until("Ready", formations=before + 1)
    assert not stream.finished
    assert "RPC server crashed" in serving.leader.log()  # by the end of its connection
    assert serving.ask("/completion", GREEDY)["content"] == SENTENCE


def test_a_killed_tunnel_heals(serving: Group) -> None:
    for pod in ("x-0-1", "x-0"):
        before = serving.until("Ready")["formations"]
        serving.tunnel(pod).kill_processes("haproxy")
        assert serving.leader.post("/completion", GREEDY, 8080)[0] in (500, 502, 503)
        serving.until("Ready", formations=before + 1)
        assert serving.ask("/completion", GREEDY)["content"] == SENTENCE


def test_new_certificates_come_without_a_break(
    serving: Group, folder: Path, certificates: Issued, tmp_path: Path
) -> None:
    former = tmp_path / "former"
    former.mkdir()
    keep(former, certificates)
    before = serving.until("Ready")
    tunnels = [serving.tunnel(pod) for pod in ("x-0", "x-0-1", "x-0-2")]
    keep(folder, issued(), certificates)
    for step in ("trusts new authorities", "shows a new certificate"):
        while not all(step in tunnel.log() for tunnel in tunnels):
            assert Stream(serving).whole().startswith(SENTENCE)  # over the same RPC connections
    new_alone = tmp_path / "new"
    shutil.copytree(folder, new_alone)
    text = (folder / "ca.crt").read_text()
    (new_alone / "ca.crt").chmod(0o600)
    (new_alone / "ca.crt").write_text(text[: text.index("-----END") + 25])
    told = ask(serving, AGENT_PORT, context(new_alone, certificate=former))
    assert b'"role": "worker"' in told  # the new one is shown, and the old one is still good
    assert serving.status()["epoch"] == before["epoch"]
    serving.worker(1).kill_processes("ggml-rpc-server", signal.SIGKILL)
    serving.until("Ready", formations=before["formations"] + 1)  # with the new ones
    assert serving.ask("/completion", GREEDY)["content"] == SENTENCE


def test_an_encrypted_group_drains(serving: Group) -> None:
    """The last test here: the group is gone then."""
    serving.until("Ready")
    stream = Stream(serving)
    eventually(lambda: stream.tokens)
    serving.terminate(120)
    assert stream.whole().startswith(SENTENCE)
    for pod in ("x-0", "x-0-1", "x-0-2"):
        assert ended_at(serving, f"tunnel of {pod}") > ended_at(serving, pod)


def ended_at(group: Group, name: str) -> datetime:
    form = "{{.State.FinishedAt}}"
    told = group.engine.docker("inspect", "--format", form, group.pods[name].id)
    return datetime.fromisoformat(told.strip().removesuffix("Z")[:26])
