"""Metrics of segmentation and geometry of representations."""
