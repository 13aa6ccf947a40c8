"""Reading uploaded files: bytes in, examples out, every error with its row and field."""
