"""Training pairs in the manner of DIS5K, rendered from a seed; ``make_dis_like.py`` is the command."""
