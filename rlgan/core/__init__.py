"""The core: everything that runs on the device."""
