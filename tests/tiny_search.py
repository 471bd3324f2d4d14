"""The smallest schedule and space to search with."""

PROXY = """
epochs = 1
resolution = 8
batch_size = 500
peak_lr = 0.2
"""
SPACE = """
num_stages = 2
[stage]
depth = { low = 1, high = 2 }
width = { low = 2, high = 12 }
kernel_size = { low = 1, high = 3, step = 2 }
"""
ON_FILES = {
    "dataset": "folder:few", "image_size": 32, "space": "tiny", "proxy": "tiny", "device": "cpu",
}  # fmt: skip
FLAGS = "--budget 3k --dataset folder:few --image-size 32 --space tiny --proxy tiny --device cpu"
