"""Files and hub data sets as rows: formats, layouts, and the user's own JSON lines."""
