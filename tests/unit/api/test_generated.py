"""What the CRD's schema lets through, and what it does not: the types take it, or say what is wrong
and where."""

from __future__ import annotations

import json

from llamacluster.cli.manifest import BadManifest, read_manifest
from tests.build import Manifest
from tests.generated import manifests, some, spoilt


def is_taken(wanted: Manifest) -> bool:
    """Whether it is; if not, what is said of it names a place in it."""
    said = ""
    try:
        read_manifest(json.dumps(wanted).encode(), "m.json")
    except BadManifest as refused:
        said = str(refused)
    assert not said or "is not valid:\n  spec" in said, wanted
    return not said


def test_what_the_schema_allows_is_taken_or_refused_by_the_name_of_its_field() -> None:
    taken = [is_taken(one) for one in some(manifests(), 50)]
    assert taken.count(True) > 10


def test_what_the_schema_does_not_allow_is_refused_by_the_name_of_its_field() -> None:
    taken = [is_taken(one) for one in some(spoilt(), 50)]
    assert taken.count(False) > 10
