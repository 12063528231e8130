"""Studies of sdpo: the evidence behind its claims, and the pre-training of its bundled policy.

They use the package as anybody would, and nothing in it imports them.
"""
