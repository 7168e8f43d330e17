"""What a GraphServer does with its peers: pure books (`books`), and handlers that do the I/O."""
