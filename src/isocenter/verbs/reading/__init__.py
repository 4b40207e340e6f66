"""Reading for all verbs: data set, device, output folder, progress."""
