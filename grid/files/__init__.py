"""Files below one root, a folder or a URL: whole or not at all, and again where a storage fails for a while."""
