"""Folders that a crash leaves where they are."""

from __future__ import annotations

import errno

import pytest

from flowrt.contract.folders import folder_of, make_folder_durably
from flowrt.testing.memory_files import MemoryFiles

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/a/b/c", "a/b/c", "a", "/a/"])
async def test_a_folder_that_was_made_survives_a_crash(path: str) -> None:
    files = MemoryFiles(lose_folders=True)
    await make_folder_durably(files, path)

    files.crash()

    assert await files.is_folder(path)


async def test_also_where_somebody_else_made_it_and_died() -> None:
    files = MemoryFiles(lose_folders=True)
    await files.make_folder("/a/b/c")
    await make_folder_durably(files, "/a/b/c")

    files.crash()

    assert await files.is_folder("/a/b/c")


async def test_also_where_it_failed_once() -> None:
    files = MemoryFiles(lose_folders=True)
    files.fail("sync_folder", "/", OSError(errno.EIO, "Input/output error"))
    with pytest.raises(OSError, match="Input/output"):
        await make_folder_durably(files, "/a/b/c")
    await make_folder_durably(files, "/a/b/c")

    files.crash()

    assert await files.is_folder("/a/b/c")


async def test_a_folder_above_that_must_not_be_read_is_no_hindrance() -> None:
    files = MemoryFiles()
    files.fail("sync_folder", "/", OSError(errno.EACCES, "Permission denied"), times=9)

    await make_folder_durably(files, "/a/b/c")

    assert await files.is_folder("/a/b/c")


def test_the_folder_of_a_path() -> None:
    paths = ["/a/b", "/a", "/", "a/b", "a", "."]
    assert [folder_of(path) for path in paths] == ["/a", "/", "/", "a", ".", "."]
