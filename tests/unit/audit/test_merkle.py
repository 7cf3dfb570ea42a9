"""Merkle trees: roots, frontiers and all three kinds of proof against the definition of RFC 9162, written out naively."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.audit import merkle
from agentos.audit.merkle import (
    EMPTY,
    Frontier,
    batch_proof,
    batch_root,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
)

SIZES = st.integers(0, 130)


def mth(leaves: list[bytes]) -> bytes:
    """The Merkle tree hash as section 2.1.1 defines it; `leaves` are data."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + mth(leaves[:split]) + mth(leaves[split:])).digest()


def path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*path(index, leaves[:split]), mth(leaves[split:])]
    return [*path(index - split, leaves[split:]), mth(leaves[:split])]


def subproof(old: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of section 2.1.4.1."""
    if old == len(leaves):
        return [] if whole else [mth(leaves)]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if old <= split:
        return [*subproof(old, leaves[:split], whole), mth(leaves[split:])]
    return [*subproof(old - split, leaves[split:], False), mth(leaves[:split])]


def data(size: int) -> list[bytes]:
    return [b"event %d" % number for number in range(size)]


def nodes(level: int, index: int) -> bytes:
    """Complete subtrees over `data`, of any size."""
    first = index << level
    return mth([b"event %d" % number for number in range(first, first + (1 << level))])


@given(SIZES)
def test_a_frontier_is_the_tree(size: int) -> None:
    """Appending leaf by leaf, or beginning from the subtrees, gives the defined root."""
    frontier = Frontier()
    for item in data(size):
        frontier.append(leaf_hash(item))
    assert frontier.size == size
    assert frontier.root() == mth(data(size)) == root_of(nodes, size) == Frontier.of(nodes, size).root()


def test_a_frontier_needs_its_peaks() -> None:
    """As many as the size has ones in binary; a copy grows by itself."""
    with pytest.raises(ValueError, match="2 peaks"):
        Frontier(3, [EMPTY])
    frontier = Frontier.of(nodes, 3)
    copy = frontier.copy()
    copy.append(leaf_hash(b"event 3"))
    assert (frontier.root(), copy.root()) == (mth(data(3)), mth(data(4)))


@given(st.data())
def test_a_path_is_the_defined_one_and_proves_only_its_leaf(draw: st.DataObject) -> None:
    """The path of the definition; checked with any other leaf, number, size, root or step it does not hold."""
    size = draw.draw(st.integers(1, 130))
    index = draw.draw(st.integers(0, size - 1))
    found, root, leaf = inclusion_proof(nodes, index, size), mth(data(size)), leaf_hash(b"event %d" % index)
    assert found == path(index, data(size))
    assert check_inclusion(leaf, index, size, found, root)
    other = draw.draw(st.integers(0, size - 1).filter(lambda number: number != index)) if size > 1 else size
    assert not check_inclusion(leaf, other, size, found, root)
    assert not check_inclusion(leaf_hash(b"event x"), index, size, found, root)
    assert not check_inclusion(leaf, index, size, found, EMPTY)
    assert not check_inclusion(leaf, index, size, [*found, EMPTY], root)
    assert not check_inclusion(leaf, index, size, found[:-1], root) or not found
    for at in range(len(found)):
        assert not check_inclusion(leaf, index, size, [*found[:at], EMPTY, *found[at + 1 :]], root)


@given(st.data())
def test_growth_is_provable_and_nothing_else_is(draw: st.DataObject) -> None:
    """The proof of the definition; with a changed beginning, another size or a changed step it does not hold."""
    new = draw.draw(SIZES)
    old = draw.draw(st.integers(0, new))
    found, before, after = consistency_proof(nodes, old, new), mth(data(old)), mth(data(new))
    assert found == (subproof(old, data(new), True) if old else [])
    assert check_consistency(old, new, before, after, found)
    if old > 0:
        edited = mth([b"edited", *data(old)[1:]])
        assert not check_consistency(old, new, edited, after, found)
        assert not check_consistency(old, new, before, EMPTY, found)
    if 0 < old < new:
        assert not check_consistency(old, new, before, after, found[:-1])
        assert not check_consistency(old, new, before, after, [*found, EMPTY])
        for at in range(len(found)):
            assert not check_consistency(old, new, before, after, [*found[:at], EMPTY, *found[at + 1 :]])
    assert not check_consistency(new + 1, new, before, after, found)


@given(st.data())
def test_many_leaves_are_proven_at_one_time(draw: st.DataObject) -> None:
    """Any set of leaves gives the root back with no more hashes than subtrees without them, and with no others."""
    size = draw.draw(SIZES)
    indices = sorted(draw.draw(st.sets(st.integers(0, max(0, size - 1)), max_size=size))) if size else []
    proof = batch_proof(nodes, indices, size)
    leaves = {index: leaf_hash(b"event %d" % index) for index in indices}
    assert batch_root(leaves, size, proof) == mth(data(size))
    assert batch_root(leaves, size, [*proof, EMPTY]) is None
    if proof:
        assert batch_root(leaves, size, proof[:-1]) is None
    if indices:
        assert batch_root(leaves | {indices[0]: EMPTY}, size, proof) != mth(data(size))
        assert batch_root({index + size: leaf for index, leaf in leaves.items()}, size, proof) is None
    if len(indices) == size:
        assert proof == []


@pytest.mark.parametrize("indices", [[1, 1], [2, 1], [-1], [8]])
def test_leaves_that_are_no_rising_list_are_refused(indices: list[int]) -> None:
    """A number twice, out of order or outside is an error of the caller."""
    with pytest.raises(ValueError, match="rising"):
        batch_proof(nodes, indices, 8)


def test_what_lies_outside_is_refused() -> None:
    """A leaf that is not there has no path, a smaller tree no proof of growth."""
    with pytest.raises(ValueError, match="not among"):
        inclusion_proof(nodes, 3, 3)
    with pytest.raises(ValueError, match="does not begin"):
        consistency_proof(nodes, 4, 3)
    assert not check_inclusion(EMPTY, 0, 0, [], EMPTY)
    assert not check_inclusion(EMPTY, -1, 1, [], EMPTY)


def test_the_known_roots() -> None:
    """The vectors that implementations of certificate transparency share: eight leaves, their roots after each."""
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    frontier = Frontier()
    for leaf, root in zip(leaves, roots, strict=True):
        frontier.append(leaf_hash(bytes.fromhex(leaf)))
        assert frontier.root().hex() == root
    assert merkle.EMPTY.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
