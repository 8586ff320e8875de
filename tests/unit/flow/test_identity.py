"""A user whom the system does not know gets a name and a home."""

import os
from pathlib import Path

import pytest

from pipeline.flow import identity

NAMES = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")


def known() -> dict[str, str]:
    """What the environment says of the user, once it is complete."""
    identity.complete()
    return {name: os.environ[name] for name in NAMES if name in os.environ}


@pytest.fixture
def nameless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, and an environment that says nothing of the user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name not in NAMES})
    return tmp_path


def test_what_the_system_knows_is_left_to_it(nameless: Path) -> None:
    assert known() == {}


def test_who_is_in_no_list_gets_a_name_and_a_home(nameless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert known() == {"HOME": str(nameless / ".selfadapt"), "USER": f"user{os.getuid()}"}


def test_what_a_person_has_set_is_kept(nameless: Path) -> None:
    os.environ |= {"HOME": "/somewhere", "LOGNAME": "somebody"}
    assert known() == {"HOME": "/somewhere", "LOGNAME": "somebody"}
