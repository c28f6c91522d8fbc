"""From texts to measures: tokenise, encode, search, rank, score."""
