"""One file a family of models; a config names it by its file."""
