"""What travels, under which subject: names, envelopes, events, messages. Pure but for encryption."""
