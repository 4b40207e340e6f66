"""Objects on disk: received whole or not at all, named by hashes, written down for the keeper."""
