"""The notebook side: `%%remote` and the JupyterLab sidebar (not built yet)."""
