"""Files are there whole or not at all, and errors in one line."""

import errno
import os

import pytest

from alignguard.errors import one_line
from alignguard.files import append_line, write_text, write_whole


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "report.html"
    write_text(path, "first")

    def half(beside):
        beside.write_text("sec")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, half)
    assert path.read_text() == "first" and [*tmp_path.iterdir()] == [path]  # half a file would take what room is left


def test_what_is_written_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("renamed"), replace(a, b)))
    write_text(tmp_path / "a", "x")
    assert done == [str(tmp_path / "a.part"), "renamed", str(tmp_path)]
    append_line(tmp_path / "lines", "1")
    append_line(tmp_path / "lines", "2", durable=False)
    assert done[3:] == [str(tmp_path / "lines")]


def test_a_folder_that_cannot_be_synced_is_none_that_fails(tmp_path, monkeypatch):
    def cannot(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", cannot)
    write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"


@pytest.mark.parametrize("torn", [b"", b'{"st', b"x" * 10_000, b'{"a": 1}'])
def test_a_line_is_added_after_the_last_whole_one(tmp_path, torn):
    path = tmp_path / "lines"
    path.write_bytes(b"1\n2\n" + torn)
    append_line(path, "3")
    assert path.read_bytes() == b"1\n2\n3\n"
    path.write_bytes(torn)
    append_line(path, "3")
    assert path.read_bytes() == b"3\n"


def test_a_link_in_a_files_place_is_not_written_through(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_text("as it was\n")
    (tmp_path / "lines").symlink_to(theirs)
    with pytest.raises(OSError, match="symbolic links"):
        append_line(tmp_path / "lines", "3")
    assert theirs.read_text() == "as it was\n"


@pytest.mark.parametrize("room", [0, 1, 7])
def test_of_a_line_that_does_not_fit_on_a_disk_nothing_stays(tmp_path, monkeypatch, room):
    path, write = tmp_path / "lines", os.write
    append_line(path, "first")

    def full(descriptor, data):
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:room])  # as the kernel does it: a part, and how long that was

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            append_line(path, "a second line")
    assert path.read_text() == "first\n"
    append_line(path, "third")
    assert path.read_text() == "first\nthird\n"


def test_what_cannot_be_encoded_is_written_all_the_same(tmp_path):
    write_text(tmp_path / "a", "a lone \ud800 surrogate, and an ä")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "a lone ? surrogate, and an ä"


def test_a_folder_that_is_not_there_is_an_error_and_not_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "no" / "page.html", "x")
    assert not (tmp_path / "no").exists()


def test_an_error_is_one_line_of_bounded_length():
    assert one_line(ValueError("a\n  b\t c")) == "a b c"
    assert len(one_line("x y " * 1000)) == 160 and len(one_line("x" * 1000, 20)) == 20
