"""Training pairs like those of DIS5K, rendered from a seed; ``render.py`` is the command."""
