import pytest

from tests.kind.cluster import Cluster, parse_version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("kind v0.33.0 go1.26.8 linux/amd64\n", (0, 33)),
        ("Client Version: v1.36.3\nKustomize Version: v5.7.1\n", (1, 36)),
        ("v3.21.4+gabc\n", (3, 21)),
        ("v3.21\n", (3, 21)),
        ("kind v0.34.0-alpha+1 go1.26.8\n", (0, 34)),
        ("what?\n", None),
    ],
)
def test_versions_of_tools_are_read(text: str, version: tuple[int, int] | None) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "-a", "a" * 60])
def test_a_name_that_could_not_be_a_cluster_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        Cluster(name)
