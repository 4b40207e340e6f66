"""A DICOM node around models: receives studies, routes, predicts, and sends the answers; nothing is lost."""
