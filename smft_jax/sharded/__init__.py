"""Search, reads and ranking over a mesh, with the results of one device."""
