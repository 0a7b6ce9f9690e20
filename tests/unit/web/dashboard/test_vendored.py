"""What pages load of others is what it says it is."""

from __future__ import annotations

import hashlib

import orjson

from triggerkit.web.dashboard.files import FILES, FOLDER

VENDOR = FOLDER / "vendor"


def test_each_file_of_others_has_its_version_license_and_hash() -> None:
    listed = orjson.loads((VENDOR / "vendored.json").read_bytes())
    known: dict[str, str] = {}
    for package in listed:
        assert package["license"] == "MIT"
        assert package["npm"]
        assert package["version"]
        assert any("LICENSE" in name for name in package["files"])
        known |= package["files"]
    files = [path for path in VENDOR.iterdir() if path.name != "vendored.json"]
    assert known == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_no_script_needs_more_than_the_policy_allows() -> None:
    scripts = [file for file in FILES if file.name.endswith(".js")]
    assert len(scripts) > 5
    for script in scripts:
        for forbidden in (b"eval(", b"new Function", b"innerHTML", b"http://", b"document.write"):
            if script.name.startswith("vendor/") and forbidden in (b"http://", b"innerHTML"):
                continue
            assert forbidden not in script.content, (script.name, forbidden)
