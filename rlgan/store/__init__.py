"""What a run leaves on disk and comes back from: checkpoints, segments of the replay, manifests."""
