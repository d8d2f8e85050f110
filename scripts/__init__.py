"""Scripts of the project itself: what makes pictures, the glossary, the built-in model and public data; not installed."""
