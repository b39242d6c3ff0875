import itertools
import re

import pytest

from alignguard.report.svg import Mark, Series, curves, path, ticks


def test_ticks_are_round_and_within():
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(-0.3, 0.3)[0] >= -0.3 and 0 in ticks(-0.3, 0.3)
    assert ticks(3, 3) == [3]


def test_curves_leave_out_what_is_no_number():
    html = curves("t", [Series("s", [(0, float("nan")), (1, 2.0)])], "x", "y")
    assert "nan" not in html and html.count("<circle") == 1


def test_curves_without_a_point_are_left_out():
    empty = Series("e", [])
    assert curves("t", [empty], "x", "y") == "" and path("t", [], "x", "y") == ""
    html = curves("t", [empty, Series("s", [(0, 1.0)], "c2", [(0, float("nan"), 1.0)])], "x", "y")
    assert "polygon" not in html and "legend" not in html and "nan" not in html


def test_steps_are_whole_and_values_stand_where_they_should():
    html = curves("t", [Series("s", [(0, 0.0), (1, 1.0)])], "step", "y", y_range=(0.0, 2.0))
    assert re.findall(r'<text class="tick"[^>]*middle">([\d.]+)<', html) == ["0", "1"]
    heights = {float(v): float(y) for y, v in re.findall(r'y="([\d.]+)" text-anchor="end">([\d.]+)<', html)}
    points = [float(y) for y in re.findall(r'cy="([\d.]+)"', html)]
    assert points == pytest.approx([heights[0.0] - 4, heights[1.0] - 4], abs=0.11)
    assert 'class="mark' not in curves("t", [Series("s", [(0, 0.0)])], "x", "y", marks=[Mark(-5, "off the axis")])
    lying = curves("t", [Series("s", [(0, 0.0)])], "x", "y", marks=[Mark(2.0, "limit", upright=False)])
    y0, y1 = re.search(r'class="mark worse" x1="56.0" x2="426.0" y1="([\d.]+)" y2="([\d.]+)"', lying).groups()
    assert y0 == y1


def test_a_long_run_is_drawn_whole_and_has_dots_for_some_of_it():
    """A dot says its value to who points at it: hundreds on as many pixels say nothing, and take most of the page."""
    values = [(step, float(step == 333)) for step in range(500)]
    html = curves("t", [Series("s", values)], "x", "y")
    (line,) = re.findall(r'<polyline[^>]*points="([^"]*)"', html)
    assert len(line.split()) == 500 and len({point.split(",")[1] for point in line.split()}) == 2
    dots = [int(step) for step in re.findall(r"<title>s: (\d+), ", html)]
    assert dots[0] == 0 and dots[-1] == 499 and 100 <= len(dots) <= 130
    assert max(b - a for a, b in itertools.pairwise(dots)) <= 5
    few = curves("t", [Series("s", values[:100])], "x", "y")
    assert few.count("<circle") == 100


def test_a_path_names_its_ends_and_what_there_is_room_for():
    points = [(i / 1000, 0.5, f"<{i}>") for i in range(1000)]
    html = path("t", points, "x", "y")
    names = re.findall(r"<text[^>]*>(&lt;\d+&gt;)</text>", html)
    assert names[:2] == ["&lt;999&gt;", "&lt;0&gt;"] and 4 < len(names) < 12
    assert html.count("<circle") == 121  # the last is drawn twice, the larger on top
    same = path("t", [(1.0, 1.0, "a"), (1.0, 1.0, "b"), (2.0, 3.0, "c")], "x", "y", y_range=(0.0, 1.0))
    assert re.findall(r"<text[^>]*>([abc])</text>", same) == ["c", "a"]
