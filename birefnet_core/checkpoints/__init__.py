"""Checkpoints: names, files and keys."""
