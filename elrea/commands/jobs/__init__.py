"""The jobs of `elrea run`: one, those of a sweep, and what each leaves in its folder."""
