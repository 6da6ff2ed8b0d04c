"""A service that scores payments as they come; see README.md."""
