"""What was found, as tables, JSON, pages: pure, from the outcome."""
