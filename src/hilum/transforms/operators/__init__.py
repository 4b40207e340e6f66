"""Linear operators of scanners: what is measured of an image, the exact transpose of it, and ways back."""
