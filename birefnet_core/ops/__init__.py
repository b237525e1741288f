"""Operators that know nothing of the network."""
