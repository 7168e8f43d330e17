"""One room per family of settings classes. None imports the library it is about, except msgspec."""
