"""Encoders: four feature maps of an image."""
