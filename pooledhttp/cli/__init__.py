"""The command `pooledhttp`, also `python -m pooledhttp`."""
