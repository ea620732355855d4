"""From a session's events to a viewer's bytes: queued within bounds, merged when one does not keep up."""
