"""The nouns: frozen dataclasses, enums whose values are what is stored, errors. No I/O here."""
