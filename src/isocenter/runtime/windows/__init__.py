"""Sliding windows over an image of any size, merged by weights, in bounded memory."""
