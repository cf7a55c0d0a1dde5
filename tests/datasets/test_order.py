"""The order that fixes test sets and nested subsets."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from viny.datasets.order import in_order

names = st.lists(st.text(min_size=1), unique=True, max_size=60)
seeds = st.integers(0, 2**31)


class Item(NamedTuple):
    name: str


def ordered(seed: int, *texts: str) -> list[str]:
    return [item.name for item in in_order([Item(text) for text in texts], seed)]


@given(names, seeds, st.randoms())
def test_the_order_does_not_depend_on_the_order_of_listing(texts, seed, random):
    shuffled = random.sample(texts, len(texts))
    assert ordered(seed, *texts) == ordered(seed, *shuffled)
    assert sorted(ordered(seed, *texts)) == sorted(texts)


@given(names, seeds, st.data())
def test_leaving_images_out_keeps_the_order_of_the_others(texts, seed, data):
    kept = data.draw(st.sets(st.sampled_from(texts))) if texts else set()
    assert ordered(seed, *kept) == [text for text in ordered(seed, *texts) if text in kept]


def test_the_order_is_the_same_on_every_machine_and_release():
    texts = [f"n01440764/n01440764_{i}.JPEG" for i in range(8)]
    assert [text[-6] for text in ordered(7, *texts)] == list("02645137")


def test_seeds_give_different_orders():
    texts = [str(i) for i in range(50)]
    assert ordered(0, *texts) != ordered(1, *texts)


def test_file_names_that_are_not_utf8_have_a_place():
    assert ordered(0, "a", "bad\udcff") in (["a", "bad\udcff"], ["bad\udcff", "a"])
