"""Captures: their cost, their taking, their storage and their comparison. One file a kind in kinds/."""
