"""Files on disk: written whole or not at all, cached, downloaded, hashed, spooled, read in blocks."""
