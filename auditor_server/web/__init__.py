"""Pages for people: what the API tells, in HTML, and nothing that it would refuse to a role."""
