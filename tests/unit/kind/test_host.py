import os
import subprocess
import sys
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


@pytest.fixture
def sysctls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of which we are root, with two sysctls of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(host, "is_root", lambda: True)
    monkeypatch.setattr(host, "sysctl_path", lambda name: tmp_path / name)
    (tmp_path / "kernel.panic").write_text("1\n")
    (tmp_path / "net.ipv4.ip_forward").write_text("0\n")
    return tmp_path


def change(folder: Path) -> None:
    """What a kubelet and a Docker engine do."""
    (folder / "kernel.panic").write_text("10\n")
    (folder / "net.ipv4.ip_forward").write_text("1\n")


def values(folder: Path) -> tuple[str, str]:
    panic, forward = (folder / "kernel.panic", folder / "net.ipv4.ip_forward")
    return panic.read_text().strip(), forward.read_text().strip()


def test_the_machines_sysctls_come_back_in_two_parts(sysctls: Path) -> None:
    host.save_sysctls()
    change(sysctls)
    host.restore_sysctls(engine=False)
    assert values(sysctls) == ("1", "1"), "a running engine lost what it needs"
    host.restore_sysctls(engine=True)
    assert values(sysctls) == ("1", "0")


def test_a_second_run_keeps_the_values_that_the_first_saved(sysctls: Path) -> None:
    host.save_sysctls()
    change(sysctls)
    host.save_sysctls()
    host.restore_sysctls(engine=True)
    assert values(sysctls) == ("1", "0")


def test_values_saved_before_a_reboot_are_not_used(
    sysctls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.save_sysctls()
    change(sysctls)
    monkeypatch.setattr(host, "boot_id", lambda: "another boot")
    host.restore_sysctls(engine=True)
    assert values(sysctls) == ("10", "1")


def test_a_mark_tells_whether_its_process_ended_as_it_should(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.kind import host\n"
        "with host.mark(Path(sys.argv[1])): print('marked', flush=True); sys.stdin.read()"
    )
    ends, is_killed = (
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    )
    for process in (ends, is_killed):
        assert process.stdout is not None
        assert process.stdout.readline() == b"marked\n"
    assert list(host.marks(tmp_path).values()) == [True, True]

    is_killed.kill()
    is_killed.communicate()
    assert host.marks(tmp_path) == {
        tmp_path / str(ends.pid): True,
        tmp_path / str(is_killed.pid): False,
    }
    ends.communicate()
    assert host.marks(tmp_path) == {tmp_path / str(is_killed.pid): False}


def test_a_mark_stays_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), host.mark(tmp_path):
        raise ZeroDivisionError
    assert host.marks(tmp_path) == {tmp_path / str(os.getpid()): False}
