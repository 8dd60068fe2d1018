"""Objects as bytes and back: `pickling` is the way in, `explain` says why something cannot go."""
