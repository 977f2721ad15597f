"""One file a score: `score(weights, **what it needs)` gives each maskable weight a number, the larger the more it is kept."""
