"""The demonstration's parts: generated scenes with known ground truth, an S3 server of its own, and the model that knows these scenes.

Needs `storage`, numpy and Pillow, and SeaweedFS's program. Knows nothing of runs and tables: the command puts these together.
"""

from pathlib import Path

MODEL = Path(__file__).parent / "model"
"""The demo model's checkpoint folder."""
