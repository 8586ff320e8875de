"""A record of DVC's that was cut off is put back as it was one stage before."""

import os

import pytest

from pipeline.flow import lock as lockfile

RECORD = """schema: '2.0'
stages:
  one:
    cmd: python one
    outs:
    - path: a
      hash: md5
      md5: 0cc175b9c0f1b6a831c399e269772661
      size: 1
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_dvc_can_read_is_left_alone(folder):
    assert lockfile.mend() is None
    lockfile.LOCK.write_text(RECORD)
    assert lockfile.mend() is None
    assert lockfile.LOCK.read_text() == RECORD


@pytest.mark.parametrize("left", [len(RECORD) - 2, len(RECORD) // 2, 20])
def test_a_record_that_was_cut_off_becomes_the_last_one_that_was_whole(folder, left):
    lockfile.LOCK.write_text(RECORD)
    lockfile.keep()
    lockfile.LOCK.write_text((RECORD + RECORD.split("stages:\n")[1].replace("one", "two"))[: len(RECORD) + left - 60])
    cut = not lockfile.whole(lockfile.LOCK)
    assert (lockfile.mend() is not None) == cut
    assert lockfile.whole(lockfile.LOCK)


def test_the_copy_follows_what_dvc_writes(folder):
    lockfile.LOCK.write_text(RECORD)
    lockfile.keep()
    lockfile.LOCK.write_text(RECORD.replace("one", "two"))
    os.utime(lockfile.LOCK, ns=(1, 1))
    lockfile.keep()
    lockfile.LOCK.write_text("stages: [")
    said = lockfile.mend()
    assert said is not None and "cut off" in said
    assert lockfile.LOCK.read_text() == RECORD.replace("one", "two")


def test_without_a_copy_the_stages_are_checked_anew(folder):
    lockfile.LOCK.write_text(RECORD[:-10])
    lockfile.LOCK.write_text("schema: '2.0'\nstages:\n  one:\n    cmd: [")
    said = lockfile.mend()
    assert said is not None and "no copy" in said
    assert not lockfile.LOCK.exists()
