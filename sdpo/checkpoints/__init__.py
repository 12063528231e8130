"""What a checkpoint is on the disk: files that are whole or noticed not to be, and tensors as slices with their place.

durable    bytes and names that are on the disk when a call returns
manifest   every file's size and checksum
slices     tensors by name, cut up as the ranks that wrote them held them
mirror     a copy of files and checkpoints below an fsspec address

Nothing here knows DeepSpeed, and nothing in a checkpoint is a pickle: tensors are safetensors, the rest is JSON.
"""
