"""Where things are."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
DATA = TESTS / "data"
HELPERS = TESTS / "helpers"
ROOT = TESTS.parent
SHARED = ROOT.parent / "shared"  # published benchmarks' files, where somebody put them beside the project
