"""What travels between peers, as bytes in and records out. Nothing here opens a socket or waits."""
