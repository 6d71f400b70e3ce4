"""General knowledge and prose: background and held-out data that ship."""
