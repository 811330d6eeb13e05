"""Scopes: what a path lies in. Slices: when they end."""

from engine.limits import ROOT, Slice, scope_path


def test_a_path_lies_in_all_its_prefixes_and_the_root() -> None:
    assert scope_path(ROOT) == ("",)
    assert scope_path("team:a") == ("", "team:a")
    assert scope_path("team:a/ann/laptop") == ("", "team:a", "team:a/ann", "team:a/ann/laptop")


def test_a_slice_ends_only_once_it_was_closed() -> None:
    assert Slice({"x": 1}, 60).ends_us is None
    assert Slice({"x": 1}, 60, 100).ends_us == 160
