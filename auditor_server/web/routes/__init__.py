"""One module per page or family of pages; each asks the server's functions and renders."""
