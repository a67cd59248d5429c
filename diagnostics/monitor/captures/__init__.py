"""Captures: what they cost, how they are taken, watched, kept and compared. One file a kind in kinds/."""
