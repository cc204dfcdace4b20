"""The pure core: values, merging, operations and memory. It knows no file, no event loop, no thread and no clock."""
