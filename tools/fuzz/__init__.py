"""Fuzzing: files and command lines with random damage must end in a right result or in one of the pack's own errors.

``make fuzz SEED=7 MINUTES=5 PART=images``; docs/reliability.md says what is tried.
"""
