"""Where state is kept, behind one protocol: only this package knows files, lock files and file system events."""
