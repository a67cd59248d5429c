"""Public services started from pinned releases, asked and ended: what the field suite and the museum share."""
