"""Other people's interfaces over our transport: `adapters.requests` and `adapters.httpx`. Each imports its library when it is imported itself."""
