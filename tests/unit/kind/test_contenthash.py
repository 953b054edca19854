from pathlib import Path

from tests.kind.contenthash import content_key


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def key(root: Path) -> str:
    return content_key(files=[root], root=root)


def test_the_same_tree_in_two_places_has_one_key(tmp_path: Path) -> None:
    files = {"a.py": "1", "deep/b.py": "2"}
    assert key(make(tmp_path / "one", files)) == key(make(tmp_path / "other", files))


def test_a_changed_byte_changes_the_key(tmp_path: Path) -> None:
    before = key(make(tmp_path, {"a": "1"}))
    assert key(make(tmp_path, {"a": "2"})) != before


def test_a_renamed_file_changes_the_key(tmp_path: Path) -> None:
    assert key(make(tmp_path / "one", {"a": "1"})) != key(make(tmp_path / "other", {"b": "1"}))


def test_text_moved_between_files_changes_the_key(tmp_path: Path) -> None:
    one = make(tmp_path / "one", {"a": "12", "b": ""})
    other = make(tmp_path / "other", {"a": "1", "b": "2"})
    assert key(one) != key(other)


def test_a_file_made_executable_changes_the_key(tmp_path: Path) -> None:
    before = key(make(tmp_path, {"a": "1"}))
    (tmp_path / "a").chmod(0o755)
    assert key(tmp_path) != before


def test_what_tools_leave_behind_does_not_count(tmp_path: Path) -> None:
    before = key(make(tmp_path, {"a.py": "1"}))
    make(tmp_path, {"__pycache__/a.pyc": "x", "deep/.mypy_cache/b": "x"})
    assert key(tmp_path) == before
    assert content_key(files=[tmp_path / "__pycache__"]) == content_key()


def test_a_key_has_as_many_digits_as_are_asked_for() -> None:
    assert len(content_key("text")) == 12
    assert content_key("text", digits=40).startswith(content_key("text"))
