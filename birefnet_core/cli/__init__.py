"""The command line: ``birefnet COMMAND``, or ``python -m birefnet_core COMMAND``; one file for each command."""
