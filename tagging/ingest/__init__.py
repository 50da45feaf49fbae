"""Looking through a collection's files: reading them in threads, comparing them with the rows, storing what is new."""
