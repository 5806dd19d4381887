"""Other people's interfaces over ours, a module each. Each imports its library when it is imported itself."""
