"""Drawings of the benchmarks: well-formed, complete without colours, and told in words."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.plot import bars, curves

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - our own


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parsed(svg).iter(f"{SVG}text")]


def test_bars_have_their_values_and_ratios():
    svg = bars("Reads", "requests/s", {"limit <raw>": 20_000, "ours": 16_000, "peer": 0}, "limit <raw>")
    written = " ".join(texts(svg))
    for expected in ("Reads", "limit <raw>", "20,000", "1.00 ×", "16,000", "0.80 ×", "peer", "0.00 ×"):
        assert expected in written


def test_a_bar_is_as_long_as_its_value():
    svg = bars("Reads", "requests/s", {"a": 100, "b": 25}, "a")
    longer, shorter = (float(bar.get("width", "")) for bar in parsed(svg).iter(f"{SVG}rect"))
    assert longer == pytest.approx(4 * shorter, rel=0.01)


def test_curves_have_every_point_and_both_axes():
    series = {"ours": [(1_000, 900.0), (1_000_000, 870.0)], "peer": [(1_000, 95.0), (1_000_000, 90.0)]}
    svg = curves("Pages", "books", "requests/s", series)
    tree = parsed(svg)
    lines = [line.get("points", "").split() for line in tree.iter(f"{SVG}polyline")]
    assert [len(points) for points in lines] == [2, 2]
    (ours_x, ours_y), (peer_x, peer_y) = (tuple(map(float, points[0].split(","))) for points in lines)
    assert ours_x == peer_x
    assert ours_y < peer_y  # more is higher up
    assert {"1k", "1M", "50", "books", "requests/s"} <= set(texts(svg))


def test_one_size_alone_is_drawn():
    assert "polyline" in curves("Pages", "books", "requests/s", {"ours": [(1_000, 900.0)]})


@pytest.mark.parametrize(
    "svg",
    [
        bars("Reads", "requests/s", {"ours": 1.0}, "ours"),
        curves("Reads", "books", "requests/s", {"ours": [(1, 2.0), (10, 20.0)]}),
    ],
)
def test_what_is_drawn_is_told_in_words(svg: str):
    tree = parsed(svg)
    named = (tree.get("aria-labelledby") or "").split()
    title, description = (tree.find(f"{SVG}*[@id='{name}']") for name in named)
    assert title is not None and title.text == "Reads"  # noqa: PT018
    assert description is not None and "ours" in (description.text or "")  # noqa: PT018
