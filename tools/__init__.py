"""Scripts for those who work on the pack; nothing of it is needed to use it."""
