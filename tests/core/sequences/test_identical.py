"""Equal things are found among many, first one first."""

from hypothesis import given
from hypothesis import strategies as st

from virnucpro_core.sequences.identical import Identities, digests_of


@given(st.lists(st.binary(max_size=2)))
def test_first_names_the_first_equal_thing(things: list[bytes]) -> None:
    identities, extended = Identities(), Identities()
    for thing in things:
        identities.add(thing)
    extended.extend_digests(digests_of(things))
    assert len(identities) == len(things)
    assert (
        identities.first().tolist() == extended.first().tolist() == [things.index(thing) for thing in things]
    )
    assert len({digest.tobytes() for digest in identities.digests}) == len(set(things))


def test_lookup_knows_what_was_added() -> None:
    identities = Identities()
    assert not identities.lookup()(b"a")
    identities.extend_digests(digests_of([b"a", b"b"]))
    is_known = identities.lookup()
    assert [is_known(thing) for thing in (b"a", b"b", b"c", b"")] == [True, True, False, False]
