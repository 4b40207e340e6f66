"""Classification: classes that exclude each other, or grades, for the whole image."""
