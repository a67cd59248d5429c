"""The event loops of the service: which there are, the tasks on them, and how late they are."""
