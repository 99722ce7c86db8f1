"""The books catalogue: a sample application on diptych, with diptych's public names only."""
