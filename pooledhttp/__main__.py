"""`python -m pooledhttp URL [URL ...]`: fetch, and show what the pool did."""
from pooledhttp.cli.command import script

if __name__ == "__main__":
    script()
