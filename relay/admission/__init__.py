"""Admission of requests: keys and scopes, foreign pages, rates, numbers of streams, memory."""
