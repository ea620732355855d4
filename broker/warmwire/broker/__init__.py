"""The wire: what travels, under which subject, in which order, and who owns a session.

Every other role imports this package; it imports none of them.
"""
