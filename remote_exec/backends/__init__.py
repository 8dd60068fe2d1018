"""Ways to bring an agent up on a host and to open a stream to it; a module each."""
