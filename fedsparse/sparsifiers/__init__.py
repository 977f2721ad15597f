"""One file a score: `score(weights, **what it needs)` gives each maskable weight a number, and the largest are kept."""
