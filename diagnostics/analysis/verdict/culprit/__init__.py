"""Whose the growth is: the line that allocated it, the container that holds it, or memory that no open stream explains."""
