"""memkit inside the frameworks that agents are written in: one thin module per framework."""
