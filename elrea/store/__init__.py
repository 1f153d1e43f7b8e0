"""What each stage made, kept on disk under a key, checked by checksums and shared between processes."""
