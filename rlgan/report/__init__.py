"""What a run shows: metrics, the live line, curves, videos, trackers."""
