"""What the end-to-end tests share: real programs in a temporary directory, and a client that knows no schema."""
