"""The measures, one file for each publication or idea."""
