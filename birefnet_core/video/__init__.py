"""Video: clips in, masks and cut-outs out, steady over time."""
