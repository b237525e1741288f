"""Colours of errors in every image that shows them: red, green, blue in [0, 1].

Vermilion and blue of Okabe and Ito's palette, which stay apart for colour-blind eyes, on white and on black.
"""

from __future__ import annotations

FALSE_POSITIVE = (0.835, 0.369, 0.0)  # vermilion: foreground in the prediction only
FALSE_NEGATIVE = (0.0, 0.447, 0.698)  # blue: foreground in the ground truth only
