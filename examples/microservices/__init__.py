"""Three HTTPS microservices, an aggregator that calls them, and what keeping connections is worth: `make run`."""
