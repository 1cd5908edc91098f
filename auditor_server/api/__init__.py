"""One router per resource; thin: read, call, answer."""
