"""Captures on disk: their folders, their manifests, and the facts of the service in a manifest."""
