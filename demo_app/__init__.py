"""The books catalogue: what an application on diptych looks like. It uses diptych's public names only."""
