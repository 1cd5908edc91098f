"""Who may do what: organisations, people and tokens, what they asked, and how often they may."""
