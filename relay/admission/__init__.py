"""Who is let in: keys and scopes, rates, numbers of streams, memory."""
