"""The paper's tables and figures: parquet in; pdf, svg, png, tex out. Nothing here imports torch."""
