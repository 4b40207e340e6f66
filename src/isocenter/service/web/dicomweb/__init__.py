"""DICOMweb: store, search and retrieve objects over HTTP (PS3.18 10)."""
