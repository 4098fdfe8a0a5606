"""Attack one picture, or train one model, while somebody watches: generators of frames."""
