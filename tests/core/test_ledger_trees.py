"""Trees over journals: RFC 6962's own roots, roots of any size while growing, and where two logs part."""

from __future__ import annotations

import pickle
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.ledger.trees import BLOCK, EMPTY_ROOT, RECENT_BLOCKS, JournalTree, RecentTree, Tree, leaf_of

INPUTS = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    bytes(range(0x50, 0x58)),
    bytes(range(0x60, 0x70)),
]
"""Those of the reference tests of Certificate Transparency, with the roots of 1, 2, … of them."""
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def plain(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def root_of(leaves: list[bytes]) -> bytes:
    """As RFC 6962 says it, from the top down."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha256(b"\x01" + root_of(leaves[:split]) + root_of(leaves[split:])).digest()


def grown(leaves: list[bytes], marks: tuple[int, ...] = ()) -> JournalTree:
    tree = JournalTree(marks)
    for leaf in leaves:
        tree.append(leaf)
    return tree


def numbered(count: int, salt: str = "") -> list[bytes]:
    return [plain(f"{salt}{n}".encode()) for n in range(count)]


def test_roots_are_those_of_the_reference() -> None:
    tree = Tree()
    assert tree.root == EMPTY_ROOT
    for data, root in zip(INPUTS, ROOTS, strict=True):
        tree.append(plain(data))
        assert tree.root.hex() == root


@pytest.mark.parametrize("count", [1, 2, 3, 255, 256, 257, 511, 512, 513, 1000])
def test_a_journal_s_root_at_any_size_it_had(count: int) -> None:
    leaves = numbered(count)
    tree = grown(leaves, marks=(1, 7, 300))
    assert tree.size == count
    assert tree.root == root_of(leaves) == tree.root_at(count)
    for size in (1, 7, 300, *range(0, count, BLOCK)):
        assert tree.root_at(size) == (root_of(leaves[:size]) if size <= count else None)
    assert tree.root_at(count + 1) is None
    if count > 20:
        assert tree.root_at(11) is None, "asked for too late"


def test_memory_is_a_hash_a_full_tree() -> None:
    tree = Tree()
    for leaf in numbered(5000):
        tree.append(leaf)
    assert len(tree.full) == bin(5000).count("1")


@given(count=st.integers(1, 700), one=st.integers(0, 699), other=st.integers(0, 699))
def test_two_swapped_records_part_two_logs(count: int, one: int, other: int) -> None:
    leaves = numbered(count)
    swapped = list(leaves)
    one, other = one % count, other % count
    swapped[one], swapped[other] = leaves[other], leaves[one]
    mine, theirs = grown(leaves), grown(swapped)
    assert mine.parts_from(theirs) == (None if one == other else min(one, other) // BLOCK * BLOCK)


@pytest.mark.parametrize(("count", "other"), [(700, 700), (700, 511), (700, 512), (700, 513), (300, 20)])
def test_of_two_sizes_full_blocks_are_compared(count: int, other: int) -> None:
    leaves = numbered(count)
    mine, theirs = grown(leaves), grown(leaves[:other])
    assert mine.parts_from(theirs) is None
    assert mine.compared(theirs) == theirs.compared(mine) == (count if count == other else other // BLOCK * BLOCK)
    changed = grown([*numbered(1, "x"), *leaves[1:other]])
    assert mine.parts_from(changed) == (0 if mine.compared(changed) else None)


def test_a_leaf_is_every_byte_of_a_record_in_its_place() -> None:
    headers = (("a", b"1"), ("b", None))
    variants = [
        leaf_of(b"k", b"v", headers),
        leaf_of(b"kv", b"", headers),
        leaf_of(None, b"kv", headers),
        leaf_of(b"k", None, headers),
        leaf_of(b"k", b"", headers),
        leaf_of(b"k", b"v", headers[::-1]),
        leaf_of(b"k", b"v", (("a", b"1"), ("b", b""))),
        leaf_of(b"k", b"v", (("a", b"1b"), ("", None))),
        leaf_of(b"k", b"v", headers[:1]),
    ]
    assert len(set(variants)) == len(variants)


def test_a_tree_that_is_followed_tells_the_root_at_each_of_its_last_sizes() -> None:
    """As many as it keeps leaves of; none before, and never more memory."""
    leaves, tree = numbered(3000), RecentTree()
    kept = (RECENT_BLOCKS - 1) * BLOCK
    for size, leaf in enumerate(leaves, 1):
        tree.append(leaf)
        if size % 97 == 0:
            for at in (size, size - 1, size - 50, max(1, size - kept + 1)):
                assert tree.root_at(at) == root_of(leaves[:at]), (size, at)
    assert tree.root == grown(leaves).root
    assert tree.root_at(1) is None
    assert tree.root_at(3001) is None
    again = pickle.loads(pickle.dumps(tree))
    assert (again.size, again.root_at(2500)) == (3000, root_of(leaves[:2500]))
    assert sum(len(block) for _, _, block in again._recent) <= RECENT_BLOCKS * BLOCK * 32
