"""Search, reads and ranking over a mesh, with the numerics of one device."""
