"""One picture attacked, or one model trained, while somebody watches: generators of frames."""
