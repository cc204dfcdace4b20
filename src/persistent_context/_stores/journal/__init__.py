"""The journal beside a JSON file: changes are appended to it, and folded into the JSON file from time to time."""
