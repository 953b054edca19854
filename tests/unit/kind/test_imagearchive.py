import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

from tests.kind.imagearchive import Image, write


def read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    assert member is not None
    return member.read()


def make(tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    (tmp_path / "pause").write_text("a program")
    with tarfile.open(tmp_path / "root.tar", "w") as root:
        root.add(tmp_path / "pause", "bin/sh")
    target = tmp_path / "images.tar"
    program = {"/pause": tmp_path / "pause"}
    write(
        [
            Image("example/pause:1", program, entrypoint=["/pause"], user="65535"),
            Image("example/one:1", program, root=tmp_path / "root.tar"),
            Image("example/other:1", program, root=tmp_path / "root.tar", user="1"),
        ],
        target,
    )
    with tarfile.open(target) as archive:
        manifest = json.loads(read(archive, "manifest.json"))
    return target, manifest


def test_each_image_has_its_name_program_and_settings(tmp_path: Path) -> None:
    target, manifest = make(tmp_path)
    assert [image["RepoTags"] for image in manifest] == [
        ["example/pause:1"],
        ["example/one:1"],
        ["example/other:1"],
    ]
    with tarfile.open(target) as archive:
        config = json.loads(read(archive, manifest[0]["Config"]))
        layer = archive.extractfile(manifest[0]["Layers"][0])
        with tarfile.open(fileobj=layer) as files:
            program = files.getmember("pause")
            assert program.mode == 0o755
            assert read(files, "pause") == b"a program"
    assert config["config"]["Entrypoint"] == ["/pause"]
    assert config["config"]["User"] == "65535"


def test_names_inside_are_the_hashes_that_a_reader_checks(tmp_path: Path) -> None:
    target, manifest = make(tmp_path)
    with tarfile.open(target) as archive:
        for image in manifest:
            config = read(archive, image["Config"])
            assert image["Config"] == f"{hashlib.sha256(config).hexdigest()}.json"
            for layer, digest in zip(
                image["Layers"], json.loads(config)["rootfs"]["diff_ids"], strict=True
            ):
                assert digest == f"sha256:{hashlib.sha256(read(archive, layer)).hexdigest()}"


def test_a_root_that_images_share_is_stored_once(tmp_path: Path) -> None:
    target, manifest = make(tmp_path)
    assert manifest[1]["Layers"] == manifest[2]["Layers"]
    with tarfile.open(target) as archive:
        names = archive.getnames()
    assert len(names) == len(set(names))
