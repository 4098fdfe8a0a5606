"""Bytes in and out: files written whole, downloads, archives, 8-bit pictures, bundled files."""
