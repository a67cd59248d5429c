"""The relay and its peers, side by side: who is measured, under what, how, and what it says."""
