"""All targets, by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "kernel"))

from fuzz_case import Target
from fuzz_events import EVENTS
from fuzz_frames import FRAMES
from fuzz_manifests import MANIFESTS

TARGETS: Final[dict[str, Target]] = {target.name: target for target in (*FRAMES, *MANIFESTS, *EVENTS)}
