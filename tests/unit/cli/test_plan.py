"""`kubectl llamacluster plan`, by the formula: no engine and no cluster are needed."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import ssl
import stat
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from llamacluster.agent.contract.options import PlanOptions, parse
from llamacluster.cli import ENGINE_IMAGE_ENV
from llamacluster.cli.plugin import plugin
from tests.build import manifest, plan_answer
from tests.engine.secret import certificate
from tests.kind.host import REPOSITORY
from tests.model.headers import write_header, write_sparse
from tests.unit.cli.servers import saying
from tests.webserver import Quiet, answering

GIB = 1 << 30
FILE = "llama-3.1-70b-Q4_K_M.gguf"
WEIGHTS_70B = 42_512_531_712
"""Of all tensors of Llama 3.1 70B in Q4_K_M, as the published file has them."""


@pytest.fixture(scope="session")
def header(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("header") / FILE
    write_header(path, "llama-3.1-70b", "Q4_K_M")
    return path


@pytest.fixture(autouse=True)
def scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Neither engine nor container runtime on PATH; nothing may remain of temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv(ENGINE_IMAGE_ENV, raising=False)
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def on_path(tmp_path: Path) -> Callable[[str, str], None]:
    """Puts a Python program on PATH."""

    def put(name: str, program: str) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        file = tmp_path / "bin" / name
        file.write_text(f"#!{sys.executable}\n{program}")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    return put


def run(*args: str, objects: list[Any] | None = None) -> Result:
    text = yaml.safe_dump_all(objects or [manifest(workers={"count": 3})])
    return CliRunner().invoke(plugin, ["plan", "-f", "-", *args], input=text)


def plans(result: Result) -> Any:
    return json.loads(result.stdout)


# What is printed.


def test_the_numbers_are_those_of_the_model(header: Path) -> None:
    result = run(f"--model={header}", "-o", "json")
    assert result.exit_code == 0
    plan = plans(result)
    assert (plan["method"], plan["errorPercent"]) == ("Formula", 10)
    assert (plan["model"]["layers"], plan["model"]["bytes"]) == (80, WEIGHTS_70B)
    assert plan["model"]["contextTrain"] == 131072
    held = sum(pod["modelBytes"] for pod in [*plan["perWorker"], plan["leader"]])
    assert held == WEIGHTS_70B
    # 80 layers, 8 heads of 128 for K and V, F16, 4096 tokens
    assert sum(w["contextBytes"] for w in plan["perWorker"]) == 80 * 2 * 8 * 128 * 2 * 4096
    assert [w["firstLayer"] for w in plan["perWorker"][1:]] == [
        w["lastLayer"] + 1 for w in plan["perWorker"][:-1]
    ]
    assert plan["perWorker"][-1]["lastLayer"] == 80


def test_the_table_says_the_same_as_the_json(header: Path) -> None:
    plan = plans(run(f"--model={header}", "-o", "json"))
    result = run(f"--model={header}")
    assert result.exit_code == 0
    rows = [re.split(r" {2,}", line.strip()) for line in result.stdout.splitlines()]
    table = {row[0]: row[1:] for row in rows if len(row) == 7}
    shown = [f"{w['firstLayer']}-{min(w['lastLayer'], 79)}" for w in plan["perWorker"]]
    shown[-1] += " + output"
    assert table.keys() == {"POD", "worker 1", "worker 2", "worker 3", "leader"}
    for index, worker in enumerate(plan["perWorker"]):
        row = table[f"worker {index + 1}"]
        assert row[0] == shown[index]
        keys = ("modelBytes", "contextBytes", "computeBytes", "memoryBytes")
        for cell, value in zip(row[1:], [*(worker[key] for key in keys), None], strict=True):
            assert cell == in_words(plan["workerMemoryBytes"] if value is None else value)
    assert table["leader"][-1] == in_words(plan["leaderMemoryBytes"])
    flat = " ".join(result.stdout.split())
    assert plan["message"] in flat
    assert all(advice in flat for advice in plan["advice"])
    assert "Numbers: by formula, within 10 %" in flat


def in_words(amount: int) -> str:
    return f"{amount / GIB:.1f} GiB" if amount >= GIB else f"{amount / (1 << 20):.0f} MiB"


def test_yaml_says_the_same_as_json(header: Path) -> None:
    as_json = plans(run(f"--model={header}", "-o", "json"))
    assert yaml.safe_load(run(f"--model={header}", "-o", "yaml").stdout) == as_json


def test_several_are_a_list_in_their_order(header: Path) -> None:
    objects = [manifest(f"x{n}", workers={"count": n}) for n in (2, 1)]
    found = plans(run(f"--model={header}", "-o", "json", objects=objects))
    assert [len(plan["perWorker"]) for plan in found] == [2, 1]


def test_several_tables_are_headed_by_their_names(header: Path) -> None:
    objects = [manifest(f"x{n}", workers={"count": n}) for n in (2, 1)]
    printed = run(f"--model={header}", objects=objects).stdout
    assert re.findall(r"^LlamaCluster (\w+)$", printed, re.M) == ["x2", "x1"]


def test_nothing_is_wider_than_the_terminal_or_coloured_in_a_pipe(header: Path) -> None:
    workers = {"count": 15, "resources": {"limits": {"memory": "2Gi", "cpu": "500m"}}}
    objects = [manifest(workers={"count": 15}), manifest(workers=workers)]
    printed = run(f"--model={header}", objects=objects).stdout
    assert all(len(line) <= 80 and line == line.rstrip() for line in printed.splitlines())
    assert "\x1b" not in printed


def test_what_the_plan_chose_can_be_put_into_the_manifest(header: Path) -> None:
    workers = {"resources": {"limits": {"memory": "24Gi"}}}
    printed = run(f"--model={header}", objects=[manifest(workers=workers)]).stdout
    [block] = re.findall(r"To pin it:\n((?:  .*\n)+)", printed)
    chosen = yaml.safe_load(block)["spec"]
    assert chosen["workers"] == {"count": 2}
    assert re.fullmatch(r"\d+Mi", chosen["leader"]["resources"]["limits"]["memory"])
    pinned = manifest(workers=workers | chosen["workers"], leader=chosen["leader"])
    again = run(f"--model={header}", objects=[pinned])
    assert again.exit_code == 0
    assert "To pin it" not in again.stdout


def test_what_does_not_fit_is_told_with_what_would(header: Path) -> None:
    workers = {"count": 2, "resources": {"limits": {"memory": "16Gi"}}}
    leader = {"resources": {"limits": {"memory": "128Mi"}}}
    result = run(f"--model={header}", objects=[manifest(workers=workers, leader=leader)])
    assert result.exit_code == 1
    assert "The model does not fit 2 workers with 16Gi each" in result.stdout
    assert re.search(
        r"^What would fit:\n  - workers.count 3\n  - workers.resources", result.stdout, re.M
    )
    assert re.search(r"^And the leader needs \d+Mi", result.stdout, re.M)


def test_one_that_does_not_fit_is_in_the_exit_code(header: Path) -> None:
    small = {"count": 1, "resources": {"limits": {"memory": "16Gi"}}}
    objects = [manifest("a", workers=small), manifest("b")]
    result = run(f"--model={header}", "-o", "json", objects=objects)
    assert result.exit_code == 1
    assert [plan["fits"] for plan in plans(result)] == [False, True]


def test_names_in_a_model_do_not_move_the_cursor(header: Path, tmp_path: Path) -> None:
    evil = tmp_path / FILE
    name = b"llama-3.1-70b"
    data = header.read_bytes()
    assert data.count(name) >= 1
    evil.write_bytes(data.replace(name, b"\x1b[2J\x1b]0;pwn\a"[: len(name)].ljust(len(name)), 1))
    printed = run(f"--model={evil}").stdout
    assert "\x1b" not in printed
    assert "\ufffd[2J" in printed


# Where the header comes from.


def test_a_whole_file_and_its_header_alone_make_the_same_plan(header: Path, tmp_path: Path) -> None:
    whole = tmp_path / FILE
    write_sparse(whole, "llama-3.1-70b", "Q4_K_M")
    answers = [run(f"--model={path}", "-o", "json").stdout for path in (whole, header)]
    assert answers[0] == answers[1]


def test_the_files_beside_the_first_belong_to_a_split_model(header: Path, tmp_path: Path) -> None:
    first = tmp_path / "m-00001-of-00002.gguf"
    first.write_bytes(header.read_bytes())
    result = run(f"--model={first}")
    assert result.exit_code == 1
    assert "m-00002-of-00002.gguf cannot be read: No such file" in result.stderr


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server's URL and its folder."""
    folder = tmp_path / "www"
    folder.mkdir()
    handler = functools.partial(_Files, directory=str(folder))
    with answering(handler) as port:
        yield f"http://127.0.0.1:{port}", folder


class _Files(Quiet, SimpleHTTPRequestHandler):
    pass


def test_the_header_is_read_from_the_manifests_web_server(served: tuple[str, Path]) -> None:
    url, folder = served
    write_sparse(folder / FILE, "llama-3.1-70b", "Q4_K_M")
    result = run("-o", "json", objects=[manifest(model={"uri": f"{url}/{FILE}"})])
    assert result.exit_code == 0
    assert plans(result)["model"]["bytes"] == WEIGHTS_70B


def test_a_model_that_is_not_there_is_one_red_line(served: tuple[str, Path]) -> None:
    url, _ = served
    result = run(objects=[manifest(model={"uri": f"{url}/m.gguf"})])
    assert result.exit_code == 1
    assert result.stderr == (f"error: {url}/m.gguf does not exist (404): correct model.uri\n")
    assert result.stdout == ""


def test_a_file_that_is_no_model_is_told(served: tuple[str, Path]) -> None:
    url, folder = served
    (folder / "m.gguf").write_text("<html>")
    result = run(objects=[manifest(model={"uri": f"{url}/m.gguf"})])
    assert result.exit_code == 1
    assert "it is a web page" in result.stderr


def test_one_model_that_is_not_there_leaves_the_others(
    served: tuple[str, Path],
) -> None:
    url, folder = served
    write_sparse(folder / FILE, "llama-3.1-70b", "Q4_K_M")
    objects = [manifest(n, model={"uri": f"{url}/{f}"}) for n, f in (("a", "no"), ("b", FILE))]
    result = run("-o", "json", objects=objects)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: a: {url}/no does not exist")
    failure, plan = plans(result)
    assert failure["reason"] == "ModelNotFound"
    assert plan["fits"]


@pytest.mark.parametrize("uri", ["pvc://models/m.gguf", "file:///models/m.gguf"])
def test_a_model_inside_the_cluster_needs_a_copy(uri: str) -> None:
    result = run(objects=[manifest(model={"uri": uri})])
    assert result.exit_code == 1
    assert f"error: {uri} is not reachable from here" in result.stderr
    assert "--model FILE" in result.stderr


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the certificate of a server, `models.crt`, and its key."""
    folder = tmp_path_factory.mktemp("certified")
    certificate(folder, "models")
    return folder


def test_a_models_server_is_shown_the_clusters_secret(certified: Path, tmp_path: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certified / "models.crt", certified / "models.key")
    write_sparse(tmp_path / FILE, "llama-3.1-70b", "Q4_K_M")

    class Handler(Quiet, SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers["Authorization"] == "Bearer hush":
                super().do_GET()
            else:
                self.send_error(401)

    def secret(token: str) -> str:
        data = {"token": token.encode(), "ca.crt": (certified / "models.crt").read_bytes()}
        return json.dumps({"data": {k: b64encode(v).decode() for k, v in data.items()}})

    with answering(functools.partial(Handler, directory=str(tmp_path)), tls=tls) as port:
        model = {"uri": f"https://127.0.0.1:{port}/{FILE}", "credentialsSecret": {"name": "hub"}}

        def planned(code: int, answer: str) -> Result:
            with saying(tmp_path, code, answer) as kubeconfig:
                place = f"--kubeconfig={kubeconfig}"
                result = run("-o", "json", "--credentials", place, objects=[manifest(model=model)])
            assert "hush" not in result.output
            return result

        done = planned(200, secret("hush\n"))
        assert plans(done)["model"]["bytes"] == WEIGHTS_70B
        assert f"/hub to 127.0.0.1:{port}" in done.stderr
        refused = planned(200, secret("other"))
        assert refused.exit_code == 1
        assert "what Secret hub (model.credentialsSecret) has does not open it" in refused.stderr
        unread = planned(403, '{"kind": "Status", "message": "no", "code": 403}')
        assert unread.exit_code == 1
        assert "--model FILE" in unread.stderr
        assert "error: Secret hub, which model.credentialsSecret names, cannot" in unread.stderr


def test_a_manifest_of_another_namespace_is_refused() -> None:
    model = {"uri": "https://127.0.0.1:9/m.gguf", "credentialsSecret": {"name": "hub"}}
    made = manifest(model=model)
    made["metadata"]["namespace"] = "prod"
    result = run("--kubeconfig=/dev/null", "--credentials", "-n", "sandbox", objects=[made])
    assert result.exit_code == 2
    assert "is of namespace prod, not sandbox" in result.stderr


@pytest.mark.parametrize(
    ("own", "args", "namespace"),
    [
        ({"namespace": "prod"}, [], "prod"),
        ({"namespace": "prod"}, ["-n", "prod"], "prod"),
        ({}, ["-n", "sandbox"], "sandbox"),
        ({}, [], "ns"),  # the context's
    ],
)
def test_the_secret_is_looked_for_where_kubectl_would_apply_the_manifest(
    tmp_path: Path, own: dict[str, str], args: list[str], namespace: str
) -> None:
    model = {"uri": "https://127.0.0.1:9/m.gguf", "credentialsSecret": {"name": "hub"}}
    made = manifest(model=model) | {"metadata": {"name": "x", **own}}
    with saying(tmp_path, 403, "{}") as kubeconfig:
        result = run(f"--kubeconfig={kubeconfig}", "--credentials", *args, objects=[made])
    assert result.stderr.startswith(f"note: shows Secret {namespace}/hub to 127.0.0.1:9\n")


def test_a_strangers_manifest_gets_no_secret_sent_to_his_server() -> None:
    model = {"uri": "https://127.0.0.1:9/m.gguf", "credentialsSecret": {"name": "hub"}}
    result = run("--kubeconfig=/dev/null", objects=[manifest(model=model)])
    assert result.exit_code == 1
    assert "Secret hub is not read from the cluster" in result.stderr
    assert "unless you say --credentials" in result.stderr


# What is wrong with the command.


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([], "Missing option '-f'"),
        (["-f", "nowhere.yaml"], "does not exist"),
        (["-f", "/"], "is a directory"),
        (["-f", "-", "--model", "/"], "is a directory"),
        (["-f", "-", "--model", "nowhere.gguf"], "does not exist"),
        (["-f", "-", "-o", "xml"], "'xml' is not one of"),
        (["-f", "-", "--engine", "steam"], "'steam' is not one of"),
    ],
)
def test_a_wrong_command_line_is_told(args: list[str], told: str) -> None:
    result = CliRunner().invoke(plugin, ["plan", *args], input="")
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_wrong_manifest_ends_with_2() -> None:
    result = run(objects=[manifest(workers={"cout": 3, "count": 1})])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: standard input: the LlamaCluster x is not valid:\n")
    assert "spec.workers.cout" in result.stderr


# Who is asked.


def test_that_no_engine_is_there_is_a_note(header: Path) -> None:
    [note] = run(f"--model={header}").stderr.splitlines()
    assert note == (
        "note: llama-server and ggml-rpc-server are not both on PATH; no engine image is named"
        f" (--image, spec.image, ${ENGINE_IMAGE_ENV}): the numbers are by formula"
    )


def test_whoever_asks_for_the_formula_gets_no_note(header: Path) -> None:
    assert run(f"--model={header}", "--engine=formula").stderr == ""


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--engine=path"], "are not both on PATH"),
        (["--engine=container"], "no engine image is named"),
        (["--engine=container", "--image=i"], "no container runtime (docker, podman, nerdctl)"),
    ],
)
def test_an_engine_that_is_asked_for_must_be_there(
    header: Path, args: list[str], told: str
) -> None:
    result = run(f"--model={header}", *args)
    assert result.exit_code == 1
    assert told in result.stderr
    assert result.stdout == ""


RUNTIME = """
import json, pathlib, sys
pathlib.Path({log!r}).open("a").write(json.dumps(sys.argv[1:]) + "\\n")
{code}
"""


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("sys.exit('no daemon')", "docker cannot get the image i: no daemon"),
        ("sys.argv[1] == 'run' and sys.exit('no such verb')", "i has no planner"),
        ("print('{\"fits\": true}')", "i has no planner that this version knows"),
        ("print('[' * 1000)", "i has no planner that this version knows"),
    ],
)
def test_a_container_that_makes_no_plan_leads_to_the_formula(
    header: Path, tmp_path: Path, on_path: Callable[[str, str], None], code: str, told: str
) -> None:
    on_path("docker", RUNTIME.format(log=str(tmp_path / "log"), code=code))
    result = run(f"--model={header}", "--image=i")
    assert result.exit_code == 0
    assert told in result.stderr
    assert "by formula" in result.stdout


def test_an_image_cannot_be_an_option_of_the_runtime(
    header: Path, tmp_path: Path, on_path: Callable[[str, str], None]
) -> None:
    on_path("docker", RUNTIME.format(log=str(tmp_path / "log"), code=""))
    result = run(f"--model={header}", objects=[manifest(image="--privileged")])
    assert "--privileged is no image" in result.stderr
    assert not (tmp_path / "log").exists()


def test_the_planners_word_that_there_is_no_plan_is_the_last(
    header: Path, tmp_path: Path, on_path: Callable[[str, str], None]
) -> None:
    failure = {"reason": "ModelInvalid", "message": "unknown model architecture: 'x'"}
    code = f"sys.argv[1] == 'run' and sys.exit(print(json.dumps({failure!r})) or 1)"
    on_path("podman", RUNTIME.format(log=str(tmp_path / "log"), code=code))
    result = run(f"--model={header}", "--image=i")
    assert result.exit_code == 1
    assert "error: unknown model architecture: 'x'" in result.stderr
    assert result.stdout == ""


def test_the_container_is_locked_down_and_its_plan_is_printed_as_it_is(
    header: Path, tmp_path: Path, on_path: Callable[[str, str], None]
) -> None:
    answer = plan_answer(41, 40)
    code = f"print('words'); print(json.dumps({answer!r}, allow_nan=False))"
    on_path("docker", RUNTIME.format(log=str(tmp_path / "log"), code=code))
    workers = {"count": 2, "resources": {"limits": {"memory": "32Gi"}}}
    spec = manifest(workers=workers, image="registry/engine:1")
    result = run(f"--model={header}", "-o", "json", objects=[spec])
    assert plans(result) == answer
    look, command = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert look == ["image", "inspect", "registry/engine:1"]
    before, after = command[: (at := command.index(spec["spec"]["image"]))], command[at + 1 :]
    for flag in ("--rm", "--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL"):
        assert flag in before
    [mount] = [word for word in before if word.startswith("--mount=")]
    assert mount.endswith(",target=/headers,readonly")
    asked = parse(after)
    assert isinstance(asked, PlanOptions)
    assert asked.model_uri == f"file:///headers/{FILE}"
    assert (asked.workers, asked.worker_memory) == (2, 32 * GIB)


REFUSES = """
import sys
sys.exit("version: 0.6.1" if "--version" in sys.argv else "error: unknown model architecture: 'x'")
"""


def test_an_engine_on_path_that_refuses_is_no_last_word(
    header: Path, tmp_path: Path, on_path: Callable[[str, str], None]
) -> None:
    on_path("llama-server", REFUSES)
    on_path("rpc-server", LISTENS)
    result = run(f"--model={header}")
    assert result.exit_code == 0
    assert result.stderr.startswith(
        f"warning: the engine on PATH ({tmp_path}/bin/llama-server, 0.6.1) refuses:"
        " the engine says: error: unknown model architecture: 'x'"
    )
    assert (
        "the numbers are by formula, which does not know whether an engine takes the model; ask the"
        " one that will serve: --engine container --image IMAGE"
    ) in result.stderr
    assert "by formula" in result.stdout
    alone = run(f"--model={header}", "--engine=path")
    assert alone.exit_code == 1
    assert "unknown model architecture" in alone.stderr


LISTENS = """
import os, socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("-p") + 1])))
while True:
    server.accept()
"""
ENDLESS = """
import os, pathlib, sys, time
if "--version" not in sys.argv:
    pathlib.Path({log!r}).write_text(f"run {{os.getpid()}} {{os.getppid()}}")
    time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process(
    header: Path,
    tmp_path: Path,
    scratch: Path,
    on_path: Callable[[str, str], None],
    how: signal.Signals,
) -> None:
    log = tmp_path / "log"
    on_path("llama-server", ENDLESS.format(log=str(log)))
    on_path("ggml-rpc-server", LISTENS)
    with started(header, scratch, "--engine=path") as command:
        eventually(lambda: log.exists() and len(log.read_text().split()) == 3)
        children = children_of(command.pid)
        assert len(children) == 4  # three workers and a leader
        command.send_signal(how)
        assert command.wait(30) == 128 + how
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


def test_an_interrupt_removes_the_container(
    header: Path, tmp_path: Path, scratch: Path, on_path: Callable[[str, str], None]
) -> None:
    log = tmp_path / "log"
    code = "import time; sys.argv[1] == 'run' and time.sleep(600)"
    on_path("docker", RUNTIME.format(log=str(log), code=code))
    with started(header, scratch, "--image=i") as command:
        eventually(lambda: log.exists() and len(log.read_text().splitlines()) == 2)
        command.send_signal(signal.SIGINT)
        assert command.wait(30) == 130
    _, ran, removed = map(json.loads, log.read_text().splitlines())
    [name] = [word.removeprefix("--name=") for word in ran if word.startswith("--name=")]
    assert removed == ["rm", "--force", name]


@contextmanager
def started(header: Path, scratch: Path, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a process of its own."""
    path = header.with_name("manifest.yaml")
    path.write_text(yaml.safe_dump(manifest(workers={"count": 3})))
    command = [sys.executable, "-m", "llamacluster.cli.plugin", "plan", "-f", str(path)]
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": "operator"}
    with subprocess.Popen(
        [*command, f"--model={header}", *args],
        env=environment,
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def children_of(pid: int) -> list[int]:
    children = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # processes come and go
            head, _, tail = path.read_text().rpartition(") ")
            if int(tail.split()[1]) == pid:
                children.append(int(head.split()[0]))
    return children


def eventually(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # between two looks at a condition
