"""Which combinations of switches to try where all of them would take too long."""

import itertools


def covering_triples(combinations):
    """Some of the combinations, in which any three switches stand together in every way that they can."""

    def triples(values):
        return set(itertools.combinations(enumerate(values), 3))

    left, chosen = set().union(*map(triples, combinations)), []
    while left:
        chosen.append(max(combinations, key=lambda values: len(left & triples(values))))
        left -= triples(chosen[-1])
    return chosen
