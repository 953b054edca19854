import os
import subprocess
from pathlib import Path

import pytest

from tests.kind import host


@pytest.mark.parametrize(
    ("bounding", "lacks"), [("000001ffffffffff", False), ("000001fffeffffff", True)]
)
def test_a_machine_without_sys_resource_is_recognised(bounding: str, lacks: bool) -> None:
    status = f"Name:\tpython\nCapEff:\t0000000000000000\nCapBnd:\t{bounding}\n"
    assert host.lacks_capability(host.CAP_SYS_RESOURCE, status) is lacks


@pytest.mark.parametrize(
    ("text", "debian"),
    [('ID=debian\nVERSION_ID="12"\n', True), ('ID="fedora"\n', False), ("ID_LIKE=debian\n", False)],
)
def test_debian_is_told_by_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, debian: bool
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/apt-get")
    (tmp_path / "os-release").write_text(text)
    assert host.is_debian(tmp_path / "os-release") is debian


def test_mounts_are_taken_off_deepest_first() -> None:
    mountinfo = "".join(
        f"1 2 0:1 / {point} rw - overlay overlay rw\n"
        for point in ("/", "/data", "/data/overlay2/x/merged", "/database", "/data/netns")
    )
    assert host.mounts_below(Path("/data"), mountinfo) == [
        "/data/overlay2/x/merged",
        "/data/netns",
        "/data",
    ]


def test_a_pid_file_counts_only_while_its_program_runs(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    pid_file.write_text(f"{os.getpid()}\n")
    name = host.program_of(os.getpid())
    assert name
    assert host.pid_runs(pid_file, name) == os.getpid()
    assert host.pid_runs(pid_file, "dockerd") is None
    pid_file.write_text("not a number")
    assert host.pid_runs(pid_file, name) is None
    assert host.pid_runs(tmp_path / "none", name) is None


def test_a_process_that_ended_and_that_nobody_collected_does_not_run() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child.pid}").exists()
    assert host.program_of(child.pid) is None
    child.wait()
