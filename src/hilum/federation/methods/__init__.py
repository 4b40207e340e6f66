"""Methods of aggregation, one file each."""
