"""Captures on disk: their folders, their manifests, and what a manifest says of the service."""
