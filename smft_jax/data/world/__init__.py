"""An invented world of people and facts, small enough to learn in minutes."""
