"""The demonstration's parts: generated scenes with known truth, an S3 server of its own, and the model that knows these scenes."""

from pathlib import Path

MODEL = Path(__file__).parent / "model"
"""The demo model's checkpoint folder."""
