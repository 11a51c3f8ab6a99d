"""A committee as a server: programs ask it by HTTP, people by the page."""
