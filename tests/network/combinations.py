"""Which combinations of switches to try where all of them would take too long."""

import itertools


def covering(combinations, together):
    """Some of the combinations, in which so many switches stand together in every way that they can."""

    def parts(values):
        return set(itertools.combinations(enumerate(values), together))

    left, chosen = set().union(*map(parts, combinations)), []
    while left:
        chosen.append(max(combinations, key=lambda values: len(left & parts(values))))
        left -= parts(chosen[-1])
    return chosen
