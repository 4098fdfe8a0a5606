"""Read and write files: whole-file writes, downloads, archives, 8-bit pictures, bundled files, progress bars."""
