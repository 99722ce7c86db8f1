"""An application that moves one of its pages to diptych: see README.md."""
