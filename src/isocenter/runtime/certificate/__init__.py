"""The parity certificate: each backend compared with torch on the same images."""

__all__: list[str] = []
