"""What shells are offered, and the page that is made of the commands' help."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from llamacluster.cli.completion import PROGRAM, SHELLS, VARIABLE, offers
from llamacluster.cli.plugin import plugin
from llamacluster.cli.reference import FILE, reference
from tests.build import stored
from tests.kind.host import REPOSITORY
from tests.unit.cli.servers import api_server

NO_FILES, FILES = ":4", ":0"


def values(*words: str) -> list[str]:
    return [line.partition("\t")[0] for line in offers(plugin, words)]


def test_kubectl_is_told_the_verbs_with_their_help() -> None:
    assert values("st") == ["status", NO_FILES]
    assert offers(plugin, ["st"])[0].startswith("status\tShow how the LlamaCluster NAME is")
    assert values() == [*sorted(plugin.commands), NO_FILES]


def test_options_and_their_values_are_offered() -> None:
    assert "--previous" in values("logs", "x", "--")
    assert values("logs", "x", "-c", "ga") == ["gate", NO_FILES]
    assert values("status", "x", "-o", "y") == ["yaml", NO_FILES]


def test_files_are_the_shells_own() -> None:
    assert values("plan", "-f", "") == [FILES]
    assert values("import", "") == [FILES]


@pytest.mark.parametrize("verb", ["bench", "chat", "logs", "status", "upgrade"])
def test_names_are_those_of_the_cluster(tmp_path: Path, verb: str) -> None:
    with api_server(tmp_path, stored("tiny"), stored("large")) as kubeconfig:
        place = f"--kubeconfig={kubeconfig}"
        assert values(verb, place, "") == ["tiny", "large", NO_FILES]
        assert values(verb, place, "-n", "ns", "t") == ["tiny", NO_FILES]
        assert values(place, verb, "t") == ["tiny", NO_FILES]
        assert values(verb, place, "-n", "elsewhere", "t") == [NO_FILES]


def test_without_a_cluster_no_names_are_offered(tmp_path: Path) -> None:
    nothing = tmp_path / "kubeconfig"
    nothing.write_text("")
    assert values("status", f"--kubeconfig={nothing}", "") == [NO_FILES]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_a_script_that_it_can_read(shell: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(plugin, ["completion", shell])
    assert done.exit_code == 0
    assert PROGRAM in done.stdout
    assert VARIABLE in done.stdout
    if program := shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(done.stdout)
        subprocess.run([program, "-n", script], check=True, env={"PATH": os.environ["PATH"]})


def test_every_verb_says_its_exit_codes_and_fits_the_screen() -> None:
    for name in plugin.commands:
        text = CliRunner().invoke(plugin, [name, "--help"], env={"COLUMNS": "80"}).stdout
        assert "Exit codes:\n    0  " in text, name
        assert "\n    2  " in text, name
        assert all(len(line) <= 80 for line in text.splitlines()), name
    short = CliRunner().invoke(plugin, ["--help"], env={"COLUMNS": "80"}).stdout
    assert "..." not in short.partition("Commands:")[2]


def test_the_reference_is_that_of_the_commands() -> None:
    assert (REPOSITORY / FILE).read_text() == reference(), "run `make generate`"
