"""Scripts of the project itself, not installed: pictures, glossary, the built-in model, public data."""
