"""A small shop: it travels with the script that imports it, data file and all."""
