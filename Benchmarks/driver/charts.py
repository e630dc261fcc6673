"""Later."""
def write(*a):
    return []
def measure(*a):
    pass
