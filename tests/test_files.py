"""Files are there whole or not at all, and errors in one line."""

import pytest

from alignguard.errors import one_line
from alignguard.files import write_text, write_whole


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "report.html"
    write_text(path, "first")

    def half(beside):
        beside.write_text("sec")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, half)
    assert path.read_text() == "first"


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
